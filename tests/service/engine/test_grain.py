"""Which small members share a run, and when they do."""

from __future__ import annotations

from typing import Any

import pytest

from bundle import Manifest
from service.engine.cost import CostModel
from service.engine.fused_costs import FusedCosts
from service.engine.grain import GRAIN_S, MAX_PARAMETERS, STEP_S, groups
from service.engine.member_cost import MemberCost
from service.engine.profile import Profile
from service.engine.scheduler import Scheduler
from service.engine.step import Step
from service.engine.ticket import Exit, StoppedBy, Ticket
from tests.fakes import costs, profile, ticket
from tests.tiny_dag import dag_manifest

NOW = 1000.0
MEMBER_S, GROUP_S = 1e-4, 2e-4
GROUP = range(1, 4)
LINEAR = profile(0.5, 0.6, 0.7, 0.8, 0.9)
STEEP = profile(0.5, 0.89, 0.891, 0.892, 0.9)


def group_costs(**changes: Any) -> CostModel:
    """Five members, of which three may run in one go."""
    return costs(*(MEMBER_S,) * 5, **{"fused": {GROUP: GROUP_S}, **changes})


def request(gains: Profile = LINEAR, **changes: Any) -> Ticket:
    return ticket(arrived=NOW, members=5, profile=gains, **changes)


def after_first(*waiting: Ticket, **changes: Any) -> Step:
    """What runs when these have their first member."""
    engine = Scheduler(group_costs(**changes), 16)
    for one in waiting:
        one.depth, one.outlook = 1, one.profile.after(1, [0.5] * one.rows)
    engine.complete(waiting, NOW)
    return engine.next_step(NOW)


def test_a_lone_request_gets_the_group_in_one_go():
    step = after_first(one := request())
    assert (step.member, step.width, step.fused, step.tickets) == (1, 3, True, (one,))
    assert step.halt is None


def test_all_its_steps():
    engine, one, steps = Scheduler(group_costs(), 16), request(), []
    engine.admit(one, NOW)
    while (step := engine.next_step(NOW)) is not None:
        steps.append((step.member, step.width, step.fused))
        one.depth = step.members.stop
        engine.complete(step.tickets, NOW)
    assert steps == [(0, 1, False), (1, 3, True), (4, 1, False)]


@pytest.mark.parametrize(
    "changes",
    [
        {"limit": 3},
        {"exit": Exit((0.9,) * 4, StoppedBy.EXIT_CONFIDENCE)},
        {"member_minimum": 2},
        {"rows": 9},
    ],
    ids=["who wants fewer", "who may leave", "who must have the second", "too many rows"],
)
def test_one_by_one_run(changes: dict[str, Any]):
    step = after_first(request(**changes))
    assert (step.member, step.width, step.fused) == (1, 1, False)


def test_a_group_is_run_as_a_whole_or_not_at_all():
    engine = Scheduler(group_costs(), 16)
    one = request()
    one.depth = 2
    engine.complete([one], NOW)
    assert engine.next_step(NOW).width == 1


@pytest.mark.parametrize(("budget_s", "width"), [(0.9 * GROUP_S, 1), (1.1 * GROUP_S, 3)])
def test_nobody_is_predicted_to_be_late(budget_s: float, width: int):
    assert after_first(request(budget_s=budget_s)).width == width
    hurried, patient = request(budget_s=budget_s), request(budget_s=1.0, seed=1)
    both = after_first(hurried, patient)
    assert (set(both.tickets), both.width) == ({hurried, patient}, width)


def other_waits(gains: Profile, seconds: float) -> Step:
    """A request for the group, and one of another model that has to wait."""
    model_costs = group_costs(fused={GROUP: seconds})
    model_costs.add("other/1", costs(*(MEMBER_S,) * 5)._members["tiny/1"])
    engine = Scheduler(model_costs, 16)
    first, second = request(gains), request(profile(0.5, 0.501, 0.502, 0.503, 0.504), seed=1)
    second.model = "other/1"
    for one in (first, second):
        one.depth, one.outlook = 1, one.profile.after(1, [0.5])
    engine.complete([first, second], NOW)
    step = engine.next_step(NOW)
    assert step.tickets == (first,)
    return step


@pytest.mark.parametrize(
    ("gains", "seconds", "width"),
    [
        # A step costs as much again beside its run: 0.1 in 200 us, and 0.3 in up to 600.
        (LINEAR, 3 * (MEMBER_S + STEP_S) - STEP_S - 1e-6, 3),
        (LINEAR, 3 * (MEMBER_S + STEP_S) - STEP_S + 1e-6, 1),
        # The others of the group are hardly worth anything.
        (STEEP, GROUP_S, 1),
        (STEEP, MEMBER_S, 3),
    ],
)
def test_while_others_wait_it_must_be_worth_as_much_a_second(gains: Profile, seconds: float, width: int):
    assert other_waits(gains, seconds).width == width


@pytest.mark.parametrize(("spare_s", "width"), [(0.9 * MEMBER_S, 1), (1.5 * GROUP_S, 3)])
def test_what_requests_to_come_would_lose_counts(spare_s: float, width: int):
    engine = Scheduler(group_costs(), 16)
    for number in range(64):
        now = NOW - 0.064 + 0.001 * number
        engine._arrivals.observe(now, MEMBER_S + spare_s, (0.0, 0.9), [MEMBER_S])
    one = request()
    one.depth = 1
    engine.complete([one], NOW)
    assert engine.next_step(NOW).width == width


def test_the_group_learns_of_its_own_steps():
    model_costs = group_costs()
    fused = model_costs.fused("tiny/1")
    for number in range(40):
        fused.observe(1, 3, 1, 3 * GROUP_S, NOW + number)
    assert fused.predict(1, 3, 1, NOW + 40) == pytest.approx(3 * GROUP_S)
    assert fused.typical(1, 3, 1) == pytest.approx(GROUP_S)
    assert model_costs.predict("tiny/1", 1, 1, NOW + 40) == pytest.approx(MEMBER_S)


@pytest.mark.parametrize(("rows", "width"), [(1, 3), (2, 3), (3, 1), (4, 1), (5, 3), (8, 3), (9, 1), (100, 1)])
def test_a_batch_is_judged_by_the_next_size_that_was_measured(rows: int, width: int):
    fused = FusedCosts({GROUP: {n: [GROUP_S] for n in (1, 2, 4, 8)}}, {GROUP: (1, 2, 8)}, 0.95)
    assert fused.width(1, rows) == width
    assert fused.width(2, rows) == 1


def manifest(members: int, parameters: int = 100) -> Manifest:
    made = dag_manifest([[]] * members, [b""] * members)
    changed = [member.model_copy(update={"parameters": parameters}) for member in made.members]
    return made.model_copy(update={"members": tuple(changed)})


def tried(*seconds: float, parameters: int = 100) -> list[list[int]]:
    each = [MemberCost({1: [one], 8: [8 * one]}, 0.95) for one in seconds]
    return [list(group) for group in groups(manifest(len(seconds), parameters), each)]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([1e-4] * 6, [[1, 2, 3, 4, 5]]),
        ([1.0, 1e-4, 1e-4], [[1, 2]]),
        ([1e-4], []),
        ([1e-4, 1e-4], []),
        ([1e-4, GRAIN_S, 1e-4], []),
        ([1e-4, 1e-4, 1e-4, 1.0, 1e-4, 1e-4], [[1, 2], [4, 5]]),
        ([1e-4, 0.4 * GRAIN_S, 0.4 * GRAIN_S, 0.4 * GRAIN_S, 0.4 * GRAIN_S, 0.9 * GRAIN_S], [[1, 2], [3, 4]]),
        ([1e-4, 0.9 * GRAIN_S, 0.2 * GRAIN_S, 0.2 * GRAIN_S], [[2, 3]]),
    ],
)
def test_groups_are_of_small_members_that_follow_each_other(seconds: list[float], expected: list[list[int]]):
    assert tried(*seconds) == expected


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [(MAX_PARAMETERS // 3, [[1, 2, 3], [4, 5]]), (MAX_PARAMETERS // 2 + 1, [])],
)
def test_groups_are_of_few_weights(parameters: int, expected: list[list[int]]):
    assert tried(*(1e-5,) * 6, parameters=parameters) == expected
