from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.cost import CostModel, batch_sizes
from service.engine.member_cost import MEMORY_S, TRY_INTERVAL_S, MemberCost, SharedCost
from service.engine.recent import at_quantile
from service.engine.wave_costs import WaveCosts


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
    assert batch_sizes(largest) == sizes


@pytest.mark.parametrize("wrong", [0.1, 10.0])
def test_a_rehearsal_that_was_wrong_by_ten_is_forgotten_within_tens_of_steps(wrong: float):
    cost = steady(0.010 * wrong)
    for _ in range(30):
        cost.observe(1, 0.010, now=0.0)
    assert cost.predict(1, now=0.0) == pytest.approx(0.010)
    assert cost.curve(1) * cost.ratio == pytest.approx(0.010)


def shared() -> SharedCost:
    """10 ms on several threads and 17 on one; four rows take 30 on one, so there one was chosen."""
    return SharedCost({1: [0.010] * 5, 4: [0.030] * 5}, {1: [0.017] * 5, 4: [0.030] * 5}, 0.95)


def test_threads_share_a_step_while_that_pays():
    cost = shared()
    assert not cost.on_one_thread(1)
    assert cost.on_one_thread(4)
    assert (cost.predict(1, 0.0), cost.usually(1)) == (pytest.approx(0.010), pytest.approx(0.010))
    cost.observe(1, 0.020, now=0.0)
    assert not cost.on_one_thread(1), "one hiccup"


def test_threads_that_wait_for_each_other_are_left_alone_for_a_while():
    cost = shared()
    for _ in range(2):
        cost.observe(1, 0.020, now=0.0)
    assert cost.on_one_thread(1)
    assert (cost.predict(1, 1.0), cost.usually(1)) == (pytest.approx(0.017), pytest.approx(0.017))
    for _ in range(2):
        cost.observe(1, 0.018, now=2.0, on_one_thread=True)
    assert cost.predict(1, 3.0) == pytest.approx(0.018)
    assert cost.holds_until == pytest.approx(MEMORY_S), "of what is forgotten first"
    assert cost.predict(1, MEMORY_S + 0.1) == pytest.approx(0.010), "they are tried again"
    assert not cost.on_one_thread(1)


def test_threads_that_were_left_alone_are_tried_again_and_again():
    cost = shared()
    assert not cost.doubtful(1, 0.0), "they share already"
    for now in (0.0, 1.0):
        for _ in range(2):
            cost.observe(1, 0.020, now=now)
        assert cost.on_one_thread(1)
        assert [cost.doubtful(1, now + later) for later in (0.0, 0.9, TRY_INTERVAL_S)] == [False, False, True]
    assert not cost.doubtful(4, 9.0), "at warm-up they were no faster"
    cost.observe(1, 0.017, now=1.5, on_one_thread=True)
    cost.observe(1, 0.015, now=2.0)
    assert cost.on_one_thread(1), "not enough faster"
    cost.observe(1, 0.011, now=3.0)
    assert not cost.on_one_thread(1)
    assert (cost.predict(1, 3.0), cost.usually(1)) == (pytest.approx(0.010), pytest.approx(0.010)), "all is forgotten"


def test_one_thread_that_is_slowed_more_gives_way():
    cost = shared()
    for _ in range(2):
        cost.observe(1, 0.020, now=0.0)
        cost.observe(1, 0.030, now=0.0, on_one_thread=True)
    assert not cost.on_one_thread(1)
    assert cost.predict(1, 0.0) == pytest.approx(0.020)


def test_whoever_asks_all_the_time_is_told_what_one_who_asks_for_the_first_time_is():
    random, asked, seen = Random(0), CostModel(), []
    asked.add("model", [shared(), steady()])
    chosen = set()
    for step in range(120):
        # Now and then so long after the last one that all is forgotten.
        now = step * 0.2 + step // 40 * 2 * MEMORY_S
        rows, duration_s, on_one_thread = random.choice([1, 4]), random.uniform(0.008, 0.050), random.random() < 0.5
        seen.append((rows, duration_s, now, on_one_thread))
        asked.observe("model", 0, rows, duration_s, now, on_one_thread=on_one_thread)
        fresh = shared()
        for before in seen:
            fresh.observe(*before[:3], on_one_thread=before[3])
        for size in (1, 2, 4):
            later = now + random.choice([0.0, 0.1])
            assert asked.predict_each("model", size, later)[0] == fresh.predict(size, later)
            assert asked.on_one_thread("model", 0, size) == fresh.on_one_thread(size)
            assert asked.usually("model", 0, size) == fresh.usually(size)
            chosen.add((size, fresh.on_one_thread(size)))
    assert len(chosen) == 6, "either way was best for each size"


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
