"""Mandatory steps when not everybody can be served: fuller batches instead of the most urgent request."""

from __future__ import annotations

import numpy as np
import pytest

from service.engine.scheduler import Scheduler
from service.engine.ticket import StoppedBy, Ticket
from tests.fakes import costs, ticket

NOW = 1000.0


def overrun(engine: Scheduler, now: float) -> None:
    """Let a request wait in vain, behind nobody."""
    engine.admit(ticket(arrived=now - 0.030, budget_s=0.031, members=1), now - 0.030)
    engine.admit(ticket(arrived=now - 0.030, budget_s=0.5, members=1), now - 0.030)


def crowd(now: float, *budgets_s: float, priority: int = 0) -> list[Ticket]:
    return [
        ticket(arrived=now, budget_s=budget_s, members=1, seed=seed, priority=priority)
        for seed, budget_s in enumerate(budgets_s)
    ]


def test_nobody_is_passed_over_while_nobody_has_waited_in_vain():
    # A row takes 10 ms alone, and 1 ms in company.
    engine = Scheduler(costs(0.010, per_row=0.001), 8)
    tight, *loose = crowd(NOW, 0.0105, 0.1, 0.1, 0.1)
    for one in (tight, *loose):
        engine.admit(one, NOW)
    assert engine.next_step(NOW).tickets == (tight,)


def test_once_somebody_has_waited_in_vain_a_fuller_batch_passes_over_the_tightest():
    engine = Scheduler(costs(0.010, per_row=0.001), 8)
    overrun(engine, NOW)
    tight, *loose = crowd(NOW, 0.0105, 0.1, 0.1, 0.1)
    for one in (tight, *loose):
        engine.admit(one, NOW)
    step = engine.next_step(NOW)
    assert set(loose) < set(step.tickets)
    assert tight not in step.tickets
    assert engine.next_step(NOW).tickets == (tight,), "it waits on, and is served if there is time"


def test_a_queue_that_has_been_empty_begins_anew():
    engine = Scheduler(costs(0.010, per_row=0.001), 8)
    overrun(engine, NOW)
    engine.next_step(NOW)
    assert not engine.next_step(NOW).tickets, "nothing but a rehearsal"
    tight, *loose = crowd(NOW, 0.0105, 0.1, 0.1, 0.1)
    for one in (tight, *loose):
        engine.admit(one, NOW)
    assert engine.next_step(NOW).tickets == (tight,)


def test_nobody_is_passed_over_where_batches_gain_nothing():
    engine = Scheduler(costs(0.010, per_row=0.010), 8)
    overrun(engine, NOW)
    tight, *loose = crowd(NOW, 0.0105, 0.1, 0.1, 0.1)
    for one in (tight, *loose):
        engine.admit(one, NOW)
    assert engine.next_step(NOW).tickets == (tight,)


def test_nobody_is_passed_over_for_a_lower_priority():
    engine = Scheduler(costs(0.010, per_row=0.001), 8)
    overrun(engine, NOW)
    (tight,), loose = crowd(NOW, 0.0105, priority=1), crowd(NOW, 0.1, 0.1, 0.1)
    for one in (tight, *loose):
        engine.admit(one, NOW)
    assert engine.next_step(NOW).tickets == (tight,)


def test_a_fuller_batch_makes_no_other_models_first_member_late():
    model_costs = costs(0.010, model="tiny/1", per_row=0.001)
    model_costs.add("large/2", costs(0.015)._members["tiny/1"])
    engine = Scheduler(model_costs, 8)
    overrun(engine, NOW)
    other = ticket(arrived=NOW, budget_s=0.0265, members=1, model="large/2", seed=9)
    tight, *loose = crowd(NOW, 0.0105, 0.1, 0.1, 0.1)
    for one in (other, tight, *loose):
        engine.admit(one, NOW)
    step = engine.next_step(NOW)
    assert len(step.tickets) == 2, "11 of the 11.5 ms that the other can wait"
    assert engine.next_step(NOW + 0.011).tickets == (other,)


@pytest.mark.parametrize(("per_row", "at_least"), [(0.001, 3.0), (0.005, 1.5)])
def test_in_overload_more_are_answered_than_batches_of_one_could(per_row: float, at_least: float):
    """Four times as many requests as batches of one can answer: their deadlines are what keeps batches small."""
    engine, random = Scheduler(costs(0.010, per_row=per_row), 16), np.random.default_rng(0)
    coming = np.cumsum(random.exponential(0.0025, 2000)).tolist()
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
