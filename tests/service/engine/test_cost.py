from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.cost import CostModel, batch_sizes
from service.engine.member_cost import MEMORY_S, MemberCost
from service.engine.recent import at_quantile
from service.engine.wave_costs import WaveCosts
from tests.fakes import FakeCrowd


def steady(seconds: float = 0.010, safety: float = 0.95) -> MemberCost:
    return MemberCost({1: [seconds] * 5, 4: [2 * seconds] * 5}, safety)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0.01, 1))
def test_quantile_is_numpys_inverted_cdf(values: list[float], share: float):
    assert at_quantile(sorted(values), share) == np.quantile(values, share, method="inverted_cdf")


def test_curve_is_linear_between_rehearsed_sizes_and_beyond():
    cost = steady()
    assert [cost.curve(rows) for rows in (1, 2, 3, 4, 8)] == pytest.approx([0.01, 0.04 / 3, 0.05 / 3, 0.02, 0.04])


def test_curve_never_falls_with_the_batch():
    cost = MemberCost({1: [0.005], 2: [0.004], 4: [0.006]}, 0.95)
    assert cost.curve(1) <= cost.curve(2) <= cost.curve(4)


def test_rehearsed_spread_counts_until_something_is_learned():
    cost = MemberCost({1: [0.010] * 9 + [0.030]}, safety=0.95)
    assert cost.predict(1, now=0.0) == pytest.approx(0.030)


def test_one_outlier_in_fifty_does_not_move_the_prediction():
    cost = steady()
    for step in range(50):
        cost.observe(1, 0.5 if step == 25 else 0.010, now=0.0)
    assert cost.predict(1, now=0.0) == pytest.approx(0.010)


@pytest.mark.parametrize("safety", [0.9, 0.95, 0.99, 1.0])
@pytest.mark.parametrize("known", [0, 1, 5, 17])
def test_one_hiccup_among_few_steps_is_not_the_next_step(known: int, safety: float):
    cost = steady(safety=safety)
    for _ in range(known):
        cost.observe(1, 0.010, now=0.0)
    cost.observe(1, 0.5, now=0.0)
    assert cost.predict(1, now=0.0) == pytest.approx(0.010)
    cost.observe(1, 0.5, now=0.0)
    assert cost.predict(1, now=0.0) == pytest.approx(0.5), "twice is no hiccup"


def test_what_is_always_slow_is_learned_however_rarely_it_is_run():
    cost = steady()
    for step in range(2):
        now = step * 2 * MEMORY_S
        cost.observe(1, 0.5, now)
        assert cost.predict(1, now) == pytest.approx(0.5 if step else 0.010)


def test_a_rehearsal_that_was_too_slow_is_forgotten_with_the_first_step():
    cost = steady()
    cost.observe(1, 0.004, now=0.0)
    assert cost.predict(1, now=0.0) == pytest.approx(0.004)


def test_a_noisy_neighbour_is_followed_within_a_dozen_steps_at_every_batch_size():
    cost = steady()
    for _ in range(100):
        cost.observe(1, 0.010, now=0.0)
    for _ in range(12):
        cost.observe(1, 0.030, now=0.0)
    assert cost.predict(1, now=0.0) == pytest.approx(0.030)
    assert cost.predict(4, now=0.0) == pytest.approx(0.060)


def test_what_a_step_usually_takes_is_the_median():
    cost = steady()
    assert cost.usual == 1.0
    for step in range(20):
        cost.observe(1, 0.030 if step % 4 == 0 else 0.012, now=0.0)
    assert (cost.usual, cost.ratio) == (pytest.approx(1.2), pytest.approx(3.0))
    cost.predict(1, now=2 * MEMORY_S)
    assert cost.usual == 1.0, "nothing recent is known"


def test_a_quiet_device_is_believed_again_after_the_memory_span():
    cost = steady()
    for _ in range(64):
        cost.observe(1, 0.050, now=0.0)
    assert cost.predict(1, now=MEMORY_S - 0.1) == pytest.approx(0.050)
    cost.observe(1, 0.010, now=MEMORY_S - 0.1)
    assert cost.predict(1, now=MEMORY_S + 0.1) == pytest.approx(0.010)
    assert cost.predict(1, now=3 * MEMORY_S) == pytest.approx(0.010)


@pytest.mark.parametrize(
    ("largest", "sizes"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (64, [1, 2, 4, 8, 16, 32, 64])]
)
def test_batch_sizes_end_at_the_largest(largest: int, sizes: list[int]):
    assert list(batch_sizes(largest)) == sizes


@pytest.mark.parametrize("wrong", [0.1, 10.0])
def test_a_rehearsal_that_was_wrong_by_ten_is_forgotten_within_tens_of_steps(wrong: float):
    cost = steady(0.010 * wrong)
    for _ in range(30):
        cost.observe(1, 0.010, now=0.0)
    assert cost.predict(1, now=0.0) == pytest.approx(0.010)
    assert cost.curve(1) * cost.ratio == pytest.approx(0.010)


def test_a_part_of_a_wave_takes_its_share_until_it_has_been_run():
    members = [MemberCost({1: [0.01], 4: [0.02]}, 0.95) for _ in range(6)]
    wave = range(1, 6)
    waves = WaveCosts(members, {wave: {1: [0.036], 4: [0.06]}}, {wave: (1,)}, lanes=2, safety=0.95)
    # Five members in three rounds, each a fifth longer than alone.
    assert waves.predict(1, 5, 1, 0.0) == pytest.approx(0.036)
    assert waves.predict(3, 2, 1, 0.0) == pytest.approx(0.012)
    assert waves.predict(1, 3, 4, 0.0) == pytest.approx(0.04)
    waves.observe(3, 2, 1, 0.024, 0.0)
    assert waves.predict(3, 2, 4, 0.0) == pytest.approx(0.04)
    assert waves.predict(1, 2, 1, 0.0) == pytest.approx(0.012)


def test_a_wave_is_as_wide_as_it_may_be_at_that_batch_size():
    members = [MemberCost({1: [0.01], 4: [0.02], 8: [0.03]}, 0.95) for _ in range(4)]
    wave = range(1, 4)
    waves = WaveCosts(members, {wave: {1: [0.01], 4: [0.02], 8: [0.09]}}, {wave: (1, 4)}, lanes=2, safety=0.95)
    assert [waves.widest(member, 1) for member in range(4)] == [1, 3, 2, 1]
    assert [waves.widest(1, rows) for rows in (2, 4, 5, 8, 9)] == [3, 3, 1, 1, 1]


def test_what_steps_take_beside_a_busy_loop_is_learned_apart():
    model_costs, loop = CostModel(), FakeCrowd()
    model_costs.add("model", [steady()])
    model_costs.watch(loop)
    model_costs.look()
    assert model_costs.predict_each("model", 1, 0.0) == [pytest.approx(0.010)]
    loop.crowded = True
    model_costs.look()
    for _ in range(2):
        model_costs.observe("model", 0, 1, 0.030, now=0.0)
    assert model_costs.predict_each("model", 1, 0.0) == [pytest.approx(0.030)]
    assert model_costs.usually("model", 0, 1) == pytest.approx(0.030)
    loop.crowded = False
    assert model_costs.predict("model", 0, 1, 0.0) == pytest.approx(0.030), "as of the last look"
    model_costs.look()
    assert model_costs.predict("model", 0, 1, 0.0) == pytest.approx(0.010)
    assert model_costs.predict_each("model", 1, 0.0) == [pytest.approx(0.010)]


def test_a_step_that_a_burst_came_into_teaches_nothing_of_a_quiet_loop():
    model_costs, loop = CostModel(), FakeCrowd()
    model_costs.add("model", [steady()])
    model_costs.watch(loop)
    model_costs.look()
    loop.contested += 1
    for _ in range(2):
        model_costs.observe("model", 0, 1, 0.030, now=0.0)
    assert model_costs.predict("model", 0, 1, 0.0) == pytest.approx(0.010)
    loop.crowded = True
    model_costs.look()
    assert model_costs.predict("model", 0, 1, 0.0) == pytest.approx(0.030)
    model_costs.remove("model")
    with pytest.raises(KeyError):
        model_costs.predict("model", 0, 1, 0.0)
