from __future__ import annotations

from collections.abc import Callable

import pytest

from bundle import Bundle
from service.engine.rehearsal import (
    BUDGET_S,
    MAX_RUNS,
    MIN_RUNS,
    TRIALS,
    UNCOUNTED_RUNS,
    WORTH_SHARING_S,
    Rehearsal,
    rehearse,
)
from service.engine.shared_cost import Cost, SharedCost
from service.engine.step import Step
from tests.fakes import FakeClock, TimedExecutor


def seconds(step: Step) -> float:
    return 0.010 * (step.member + 1) * step.rows


def test_the_curves_are_what_the_members_take(tiny: Bundle):
    clock = FakeClock()
    executor = TimedExecutor(clock, seconds)
    executor.load("tiny/1", tiny)
    costs = rehearse(executor, "tiny/1", 3, 6, 0.95, clock)
    assert [cost.rows for cost in costs] == [(1, 2, 4, 6)] * 3
    for member, cost in enumerate(costs):
        assert cost.medians_s == pytest.approx([0.010 * (member + 1) * rows for rows in (1, 2, 4, 6)])


@pytest.mark.parametrize(("duration_s", "runs"), [(1e-6, MAX_RUNS), (BUDGET_S, MIN_RUNS), (BUDGET_S / 10, 10)])
def test_slow_members_are_run_less_often(tiny: Bundle, duration_s: float, runs: int):
    clock = FakeClock(now=0.0)
    executor = TimedExecutor(clock, lambda step: duration_s)
    executor.load("tiny/1", tiny)
    rehearse(executor, "tiny/1", 1, 1, 0.95, clock)
    assert abs(len(executor.steps) - UNCOUNTED_RUNS - runs) <= 1


def test_a_slow_first_run_is_not_counted(tiny: Bundle):
    clock = FakeClock()
    executor = TimedExecutor(clock, lambda step: 9.0 if not executor.steps else 0.010)
    executor.load("tiny/1", tiny)
    (cost,) = rehearse(executor, "tiny/1", 1, 1, 1.0, clock)
    assert cost.predict(1, clock.now()) == pytest.approx(0.010)


def test_it_goes_run_by_run(tiny: Bundle):
    clock = FakeClock()
    executor = TimedExecutor(clock, seconds)
    executor.load("tiny/1", tiny)
    rehearsal = Rehearsal(executor, "tiny/1", 3, 1, clock)
    assert rehearsal.advance() == pytest.approx(0.010)
    assert len(executor.steps) == 1


class Wayward(TimedExecutor):
    """An executor with several ways to run a member; `seconds` tells what a way takes on so many rows."""

    def __init__(self, clock: FakeClock, seconds: Callable[[int, int], float], ways: int) -> None:
        super().__init__(clock, lambda step: seconds(0 if step.on_one_thread else self.way[step.member], step.rows))
        self.way = {0: 0, 1: 0, 2: 0}
        self.chosen: dict[tuple[int, int], int] = {}
        self._count = ways

    def ways(self, model: str, member: int) -> int:
        return self._count

    def choose(self, step: Step, way: int) -> None:
        self.way[step.member] = self.chosen[step.member, step.rows] = way


def rehearsed(tiny: Bundle, seconds: Callable[[int, int], float], ways: int = 2) -> tuple[Wayward, list[Cost]]:
    clock = FakeClock()
    executor = Wayward(clock, seconds, ways)
    executor.load("tiny/1", tiny)
    return executor, rehearse(executor, "tiny/1", 2, 4, 0.95, clock)


def test_each_batch_size_is_run_and_timed_the_way_that_is_fastest_there(tiny: Bundle):
    executor, costs = rehearsed(tiny, lambda way, rows: [0.010 * rows, 0.020, 0.025][way], ways=3)
    assert executor.chosen == {(member, rows): 1 for member in (0, 1) for rows in (1, 2, 4)}
    for cost in costs:
        assert [cost.curve(rows) for rows in (1, 2, 4)] == pytest.approx([0.010, 0.020, 0.020])
        assert [cost.on_one_thread(rows) for rows in (1, 2, 4)] == [True, True, False]
    for rows in (1, 2, 4):
        timed = [step for step in executor.steps if (step.member, step.rows) == (0, rows)][-UNCOUNTED_RUNS - MIN_RUNS :]
        assert {step.on_one_thread for step in timed} == {rows < 4}, "longest the way that is better"


def test_what_one_thread_takes_is_known_and_what_more_do(tiny: Bundle):
    _, (cost, _) = rehearsed(tiny, lambda way, rows: [0.010 * rows, 0.020][way])
    assert isinstance(cost, SharedCost)
    assert [cost.on_one_thread(rows) for rows in (1, 2, 4)] == [True, True, False]
    for _ in range(2):
        cost.observe(4, 0.060, now=0.0)
    assert cost.on_one_thread(4)
    assert cost.predict(4, 0.0) == pytest.approx(0.040)
    _, (plain, _) = rehearsed(tiny, lambda way, rows: 0.010, ways=1)
    assert not isinstance(plain, SharedCost)


@pytest.mark.parametrize(("saved", "shared"), [(0.15, False), (0.25, True)])
def test_more_threads_must_pay_for_what_they_take(tiny: Bundle, saved: float, shared: bool):
    _, costs = rehearsed(tiny, lambda way, rows: 0.010 * (1 - saved * way))
    assert {cost.on_one_thread(rows) for cost in costs for rows in (1, 2, 4)} == {not shared}


def test_of_several_ways_on_more_threads_one_that_takes_more_must_pay_for_it(tiny: Bundle):
    chosen = []
    for third_s in (0.009, 0.007):
        executor, _ = rehearsed(tiny, lambda way, rows, third_s=third_s: [0.010, 0.010, third_s][way], ways=3)
        chosen.append(set(executor.chosen.values()))
    assert chosen == [{1}, {2}]


@pytest.mark.parametrize(("won", "chosen"), [(TRIALS - 2, 1), (TRIALS - 1, 2)])
def test_a_way_that_takes_more_must_win_nearly_every_time(tiny: Bundle, won: int, chosen: int):
    turns = iter([False, *[True] * won, *[False] * (TRIALS - won)])

    def seconds(way: int, rows: int) -> float:
        return (0.001 if next(turns, False) else 0.010) if way == 2 else 0.005

    executor, _ = rehearsed(tiny, seconds, ways=3)
    assert executor.chosen[0, 1] == chosen, "on a busy machine the best of a few turns says little"


def test_a_first_run_that_is_slow_decides_nothing(tiny: Bundle):
    clock = FakeClock()
    executor = Wayward(clock, lambda way, rows: 0.0, ways=2)
    slow_once: set[int] = set()

    def seconds(step: Step) -> float:
        way = executor.way[step.member]
        first = way not in slow_once
        slow_once.add(way)
        return (9.0 if first else 0.010) * (0.5 if way else 1)

    executor._seconds = seconds
    executor.load("tiny/1", tiny)
    rehearse(executor, "tiny/1", 1, 1, 0.95, clock)
    assert executor.chosen == {(0, 1): 1}


@pytest.mark.parametrize(("duration_s", "trials"), [(1e-3, TRIALS), (BUDGET_S, 1)])
def test_slow_ways_are_tried_less_often(tiny: Bundle, duration_s: float, trials: int):
    clock = FakeClock(now=0.0)
    executor = Wayward(clock, lambda way, rows: duration_s, ways=2)
    executor.load("tiny/1", tiny)
    runs = MAX_RUNS if duration_s < BUDGET_S else MIN_RUNS
    rehearse(executor, "tiny/1", 1, 1, 0.95, clock)
    assert len(executor.steps) == 2 * (1 + trials) + UNCOUNTED_RUNS + runs - trials, "of a way tried, so many are known"


def test_what_is_done_before_another_thread_wakes_is_not_shared(tiny: Bundle):
    executor, (cost, _) = rehearsed(tiny, lambda way, rows: 0.9 * WORTH_SHARING_S * rows * 0.5**way)
    assert executor.chosen == {(member, rows): int(rows > 1) for member in (0, 1) for rows in (1, 2, 4)}
    assert [cost.on_one_thread(rows) for rows in (1, 2, 4)] == [True, False, False]
    assert not cost.doubtful(1, 1e9), "there is nothing to share"
    first = [step for step in executor.steps if step.member == 0 and step.rows == 1]
    assert len(first) == 3 + UNCOUNTED_RUNS + MAX_RUNS, "two ways once, the first once more"


def test_one_way_is_not_tried(tiny: Bundle):
    executor, _ = rehearsed(tiny, lambda way, rows: 1.0, ways=1)
    assert not executor.chosen
    assert len(executor.steps) == 2 * 3 * (UNCOUNTED_RUNS + MIN_RUNS)
