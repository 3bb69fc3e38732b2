"""Mandatory steps when not everybody can be served: fuller batches instead of the most urgent request."""

from __future__ import annotations

import numpy as np
import pytest

from service.engine.scheduler import Scheduler
from service.engine.ticket import StoppedBy, Ticket
from tests.fakes import costs, ticket

NOW = 1000.0


def crowd(now: float, *budgets_s: float, priority: int = 0) -> list[Ticket]:
    return [
        ticket(arrived=now, budget_s=budget_s, members=1, seed=seed, priority=priority)
        for seed, budget_s in enumerate(budgets_s)
    ]


def engine_with(*tickets: Ticket, per_row: float = 0.001) -> Scheduler:
    """A row takes 10 ms alone, and `per_row` in company."""
    engine = Scheduler(costs(0.010, per_row=per_row), 8)
    for one in tickets:
        engine.admit(one, NOW)
    return engine


def test_the_tightest_is_not_passed_over_while_everybody_can_be_in_time():
    tight, *loose = crowd(NOW, 0.0105, 0.1, 0.1, 0.1)
    assert engine_with(tight, *loose).next_step(NOW).tickets == (tight,)


def test_where_one_is_late_anyway_a_fuller_batch_passes_over_the_tightest():
    tight, doomed, *loose = crowd(NOW, 0.0105, 0.0106, 0.1, 0.1, 0.1, 0.1)
    engine = engine_with(tight, doomed, *loose)
    step = engine.next_step(NOW)
    assert set(step.tickets) == set(loose)
    assert engine.waiting == 2
    assert engine.next_step(NOW).tickets == (tight,), "those passed over wait on"


def test_nobody_is_passed_over_where_batches_gain_nothing():
    tight, doomed, *loose = crowd(NOW, 0.0105, 0.0106, 0.1, 0.1, 0.1, 0.1)
    assert engine_with(tight, doomed, *loose, per_row=0.010).next_step(NOW).tickets == (tight,)


def test_nobody_is_passed_over_for_a_lower_priority():
    (tight, doomed), loose = crowd(NOW, 0.0105, 0.0106, priority=1), crowd(NOW, 0.1, 0.1, 0.1, 0.1)
    assert engine_with(tight, doomed, *loose).next_step(NOW).tickets == (tight,)


def test_a_fuller_batch_makes_no_other_models_first_member_late():
    model_costs = costs(0.010, model="tiny/1", per_row=0.001)
    model_costs.add("large/2", costs(0.015)._members["tiny/1"])
    engine = Scheduler(model_costs, 8)
    other = ticket(arrived=NOW, budget_s=0.0265, members=1, model="large/2", seed=9)
    for one in (other, *crowd(NOW, 0.0105, 0.0106, 0.1, 0.1, 0.1, 0.1)):
        engine.admit(one, NOW)
    assert len(engine.next_step(NOW).tickets) == 2, "11 of the 11.5 ms that the other can wait"
    assert engine.next_step(NOW + 0.011).tickets == (other,)


@pytest.mark.parametrize(("per_row", "every", "at_least"), [(0.001, 0.0012, 3.0), (0.005, 0.0025, 1.5)])
def test_in_overload_far_more_are_answered_than_batches_of_one_could(per_row: float, every: float, at_least: float):
    """Earliest deadline first answers 1.59 and 1.07 times as many as batches of one: deadlines keep batches small."""
    engine, random = Scheduler(costs(0.010, per_row=per_row), 16), np.random.default_rng(0)
    coming = np.cumsum(random.exponential(every, 2000)).tolist()
    now, answered = 0.0, 0
    while coming:
        while coming and coming[0] <= now:
            at = coming.pop(0)
            engine.admit(ticket(arrived=at, budget_s=random.choice([0.02, 0.05, 0.1]), members=1), now)
        step = engine.next_step(now)
        if step is None or not step.tickets:
            now = max(now, coming[0]) if coming else now
            continue
        now += 0.010 + per_row * (step.rows - 1)
        for one in step.tickets:
            one.depth = 1
            assert one.deadline.slack(now) >= -1e-9
        engine.complete(step.tickets, now)
        answered += sum(one.stopped_by is StoppedBy.COMPLETE for one in engine.take_settled())
    assert answered * 0.010 / now > at_least


def test_who_can_no_longer_be_in_time_keeps_no_other_models_batch_small():
    model_costs = costs(0.010, model="tiny/1", per_row=0.001)
    model_costs.add("large/2", costs(0.050)._members["tiny/1"])
    engine = Scheduler(model_costs, 8)
    hopeless = ticket(arrived=NOW, budget_s=0.052, members=1, model="large/2", seed=9)
    engine.admit(hopeless, NOW)
    crowded = crowd(NOW + 0.005, *[0.03] * 8)
    for one in crowded:
        engine.admit(one, NOW + 0.005)
    assert set(engine.next_step(NOW + 0.005).tickets) == set(crowded)
    assert [(one.ticket, one.stopped_by) for one in engine.take_settled()] == [(hopeless, StoppedBy.DEADLINE)]
