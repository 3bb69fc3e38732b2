from __future__ import annotations

import pytest

from bundle import Bundle
from service.engine.rehearsal import BUDGET_S, MAX_RUNS, MIN_RUNS, UNCOUNTED_RUNS, Rehearsal, rehearse
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
