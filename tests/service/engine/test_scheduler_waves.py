"""The scheduler's choice between a member and a wave: members 1 to 5 are apart, two may run at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.cost import CostModel
from service.engine.profile import Profile
from service.engine.scheduler import Scheduler
from service.engine.step import Step
from service.engine.ticket import Exit, StoppedBy, Ticket
from tests.fakes import costs, profile, ticket

NOW = 1000.0
MEMBER_S = 0.010
LINEAR = profile(0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
STEEP = profile(0.4, 0.9, 0.901, 0.902, 0.903, 0.904)
FLAT = profile(*(0.5,) * 6)


def wide_costs(wave_s: float = 3 * MEMBER_S, **changes: Any) -> CostModel:
    """Five members in three rounds, unless told."""
    return costs(*(MEMBER_S,) * 6, wave_s=wave_s, **changes)


def request(gains: Profile = LINEAR, **changes: Any) -> Ticket:
    return ticket(members=6, profile=gains, **changes)


def run(engine: Scheduler, step: Step, now: float) -> None:
    for one in step.tickets:
        one.depth = step.members[-1] + 1
        one.outlook = one.profile.after(one.depth, [0.5] * one.rows)
    engine.complete(step.tickets, now)


def walk(engine: Scheduler, model_costs: CostModel, *waiting: Ticket) -> list[tuple[int, int]]:
    """Member and width of each step until nothing waits, each taking what was predicted."""
    now, steps = NOW, []
    for one in waiting:
        engine.admit(one, now)
    while (step := engine.next_step(now)) is not None and step.tickets:
        steps.append((step.member, step.width))
        if step.width == 1:
            now += model_costs.predict(step.model, step.member, step.rows, now)
        else:
            now += model_costs.waves(step.model).predict(step.member, step.width, step.rows, now)
        run(engine, step, now)
    return steps


def steps_of(*waiting: Ticket, max_batch_rows: int = 8, **changes: Any) -> list[tuple[int, int]]:
    model_costs = wide_costs(**changes)
    return walk(Scheduler(model_costs, max_batch_rows), model_costs, *waiting)


def depth_reached(steps: list[tuple[int, int]]) -> int:
    return sum(width for _, width in steps)


def test_the_first_member_is_alone_and_the_others_share_steps():
    steps = steps_of(request())
    assert steps[0] == (0, 1)
    assert max(width for _, width in steps) > 1
    assert depth_reached(steps) == 6


@pytest.mark.parametrize("gains", [LINEAR, STEEP, FLAT])
def test_with_as_many_lanes_as_members_the_whole_wave_is_best(gains: Profile):
    assert steps_of(request(gains), lanes=5, wave_s=1.2 * MEMBER_S) == [(0, 1), (1, 5)]


def test_a_lone_request_takes_all_that_it_wants_at_once():
    assert steps_of(request()) == [(0, 1), (1, 5)]


def test_while_others_wait_no_lane_is_left_empty():
    # Three rounds are needed; in the last of them a wave of all would leave a lane empty.
    assert (1, 4) in steps_of(request(seed=1), request(seed=2), max_batch_rows=1)


def test_while_many_arrive_steps_are_short():
    # Each of these can be kept waiting for 11 ms: one round of two members, not two rounds.
    engine = Scheduler(wide_costs(), 8)
    for arrived in range(100):
        other = request(profile(0.9, *(0.91,) * 5), arrived=NOW - 0.1 + arrived * 1e-3, budget_s=0.021, seed=arrived)
        engine.admit(other, other.deadline.arrived)
        engine.cancel(other, StoppedBy.ABANDONED)
    one = request()
    one.depth, one.outlook = 1, one.profile.after(1, [0.5])
    engine.admit(one, NOW)
    step = engine.next_step(NOW)
    assert (step.member, step.width) == (1, 2)


@pytest.mark.parametrize("gains", [STEEP, FLAT])
def test_a_lone_request_takes_what_ends_sooner_whatever_the_gains(gains: Profile):
    steps = steps_of(request(gains), wave_s=4 * MEMBER_S)
    assert max(width for _, width in steps) > 1


def test_a_wave_that_is_no_faster_is_not_run():
    assert {width for _, width in steps_of(request(), wave_s=8 * MEMBER_S)} == {1}


def test_where_it_is_forced_it_is():
    assert steps_of(request(), wave_s=8 * MEMBER_S, forced=True) == [(0, 1), (1, 5)]


def test_while_others_wait_more_members_must_keep_the_pace_of_the_first():
    model_costs = wide_costs(wave_s=4 * MEMBER_S)
    for gains, width in ((LINEAR, 4), (STEEP, 1)):
        engine = Scheduler(model_costs, 1)
        for seed in range(2):
            one = request(gains, budget_s=9.0, seed=seed)
            one.depth, one.outlook = 1, one.profile.after(1, [0.5])
            engine.admit(one, NOW)
        step = engine.next_step(NOW)
        assert (step.member, step.width, engine.waiting) == (1, width, 1)


@pytest.mark.parametrize(("budget_s", "depth"), [(0.011, 1), (0.021, 3), (0.031, 5), (0.041, 6)])
@pytest.mark.parametrize("forced", [False, True])
def test_a_wave_is_cut_to_what_fits_the_deadline(budget_s: float, depth: int, forced: bool):
    assert depth_reached(steps_of(request(budget_s=budget_s), forced=forced)) == depth


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_a_wave_is_cut_to_the_members_that_are_wanted(limit: int):
    assert depth_reached(steps_of(request(limit=limit), lanes=5, wave_s=MEMBER_S, forced=True)) == limit


def test_a_batch_runs_what_all_in_it_want():
    engine = Scheduler(wide_costs(lanes=5, wave_s=MEMBER_S), 8)
    for seed, limit in enumerate((6, 3)):
        engine.admit(request(limit=limit, seed=seed), NOW)
    run(engine, engine.next_step(NOW), NOW)
    step = engine.next_step(NOW)
    assert (len(step.tickets), step.members) == (2, range(1, 3))


def test_mandatory_members_are_never_widened():
    assert steps_of(request(member_minimum=3), lanes=5, wave_s=MEMBER_S) == [(0, 1), (1, 1), (2, 1), (3, 3)]


def test_rows_that_may_leave_early_are_looked_at_after_each_member():
    leaves = Exit((0.9,) * 5, StoppedBy.EXIT_CONFIDENCE)
    assert {width for _, width in steps_of(request(exit=leaves), forced=True)} == {1}


def test_a_wave_that_has_become_slow_is_not_begun_where_it_would_end_late():
    for budget_s, width in ((0.5, 1), (5.0, 5)):
        model_costs = wide_costs()
        for parts in (2, 3, 4, 5, 5):
            model_costs.waves("tiny/1").observe(1, parts, 1, 1.0, NOW)
        engine = Scheduler(model_costs, 8)
        engine.admit(request(budget_s=budget_s), NOW)
        run(engine, engine.next_step(NOW), NOW)
        assert engine.next_step(NOW).width == width


@settings(max_examples=60, deadline=None)
@given(
    crowd=st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(0.005, 0.2)),
            st.integers(1, 6),
            st.integers(1, 3),
            st.sampled_from([LINEAR, STEEP, FLAT]),
            st.integers(1, 3),
        ),
        min_size=1,
        max_size=6,
    ),
    wave_s=st.floats(0.5 * MEMBER_S, 7 * MEMBER_S),
    lanes=st.integers(2, 5),
    forced=st.booleans(),
)
def test_whatever_comes_no_step_is_predicted_late_and_nobody_gets_more_than_wanted(
    crowd: list[tuple[float | None, int, int, Profile, int]], wave_s: float, lanes: int, forced: bool
):
    model_costs = wide_costs(wave_s, lanes=lanes, forced=forced, per_row=0.001)
    engine, now = Scheduler(model_costs, 8), NOW
    company = [
        request(gains, rows=rows, budget_s=budget_s, limit=limit, member_minimum=min(minimum, limit), seed=seed)
        for seed, (budget_s, limit, rows, gains, minimum) in enumerate(crowd)
    ]
    for one in company:
        engine.admit(one, now)
    while (step := engine.next_step(now)) is not None and step.tickets:
        if step.width == 1:
            now += model_costs.predict("tiny/1", step.member, step.rows, now)
        else:
            now += model_costs.waves("tiny/1").predict(step.member, step.width, step.rows, now)
        for one in step.tickets:
            assert now <= one.deadline.answer_by + 1e-6
            assert one.depth == step.member
            assert step.members[-1] < one.member_limit
            assert step.width == 1 or one.depth >= one.member_minimum
        run(engine, step, now)
    assert {one.ticket for one in engine.take_settled()} == set(company)
