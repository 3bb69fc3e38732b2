"""Optional steps: of two that are worth about the same, the one that cannot wait is first."""

from __future__ import annotations

import pytest

from service.engine.mandatory import PATIENCE_S
from service.engine.optional import DISCOUNT_S
from service.engine.scheduler import Scheduler
from service.engine.ticket import StoppedBy, Ticket
from tests.fakes import costs, ticket

NOW = 1000.0


def started(budget_s: float | None, gain: float, seed: int) -> Ticket:
    one = ticket(arrived=NOW, budget_s=budget_s, members=2, seed=seed)
    one.depth, one.outlook = 1, (0.5, 0.5 + gain)
    return one


@pytest.mark.parametrize(
    ("gain", "first"),
    [(0.10, "tight"), (0.11, "tight"), (0.40, "loose")],
    ids=["as much", "a little more", "far more"],
)
def test_what_can_wait_counts_less(gain: float, first: str):
    engine = Scheduler(costs(0.010, 0.010), 1)
    one = {"tight": started(0.015, 0.10, 1), "loose": started(0.015 + DISCOUNT_S, gain, 2)}
    engine.complete(list(one.values()), NOW)
    assert engine.next_step(NOW).tickets == (one[first],)


def test_the_discount_holds_across_queues_too():
    engine = Scheduler(costs(0.010, 0.010, 0.010), 1)
    tight, loose = started(0.015, 0.10, 1), ticket(arrived=NOW, budget_s=0.9, members=3, seed=2)
    loose.depth, loose.outlook = 2, (0.5, 0.7)
    engine.complete([loose, tight], NOW)
    assert engine.next_step(NOW).tickets == (tight,)
    assert engine.next_step(NOW).tickets == (loose,)


def test_who_has_no_deadline_waits_for_those_who_have():
    engine = Scheduler(costs(0.010, 0.010), 1)
    patient, tight = started(None, 0.4, 1), started(0.015, 0.01, 2)
    engine.complete([patient, tight], NOW)
    assert engine.next_step(NOW).tickets == (tight,)
    assert engine.next_step(NOW).tickets == (patient,)


def test_one_without_any_gain_comes_last_and_comes():
    engine = Scheduler(costs(0.010, 0.010), 1)
    useless, useful = started(0.015, 0.0, 1), started(0.9, 0.01, 2)
    engine.complete([useless, useful], NOW)
    assert engine.next_step(NOW).tickets == (useful,)
    assert engine.next_step(NOW).tickets == (useless,)


def test_one_that_has_waited_for_long_is_discounted_no_more():
    engine = Scheduler(costs(0.010, 0.010), 1)
    old, now = started(3600.0, 0.01, 1), NOW + 1800.0
    fresh = ticket(arrived=now, budget_s=0.015 + DISCOUNT_S, members=2, seed=2)
    fresh.depth, fresh.outlook = 1, (0.5, 0.51)
    engine.complete([fresh, old], now)
    assert engine.next_step(now).tickets == (old,)
    assert engine.next_step(now).tickets == (fresh,)


def test_who_was_alone_shares_the_step_with_who_comes():
    engine = Scheduler(costs(0.010, 0.010), 8)
    one, other = started(0.9, 0.1, 1), started(0.9, 0.1, 2)
    engine.complete([one], NOW)
    engine.complete([other], NOW)
    assert engine.next_step(NOW).tickets == (one, other)
    assert engine.next_step(NOW) is None


def test_who_was_alone_waits_for_who_is_more_urgent():
    engine = Scheduler(costs(0.010, 0.010), 8)
    alone, new = started(0.9, 0.1, 1), ticket(arrived=NOW, budget_s=0.5, members=2, seed=2)
    engine.complete([alone], NOW)
    assert engine.waiting == 1
    engine.admit(new, NOW)
    assert engine.next_step(NOW).tickets == (new,)
    assert engine.next_step(NOW).tickets == (alone,)
    assert engine.next_step(NOW) is None


def test_who_was_alone_and_is_cancelled_runs_no_more():
    engine = Scheduler(costs(0.010, 0.010), 8)
    alone = started(0.9, 0.1, 1)
    engine.complete([alone], NOW)
    engine.cancel(alone, StoppedBy.ABANDONED)
    assert engine.next_step(NOW) is None
    assert [(one.ticket, one.stopped_by) for one in engine.take_settled()] == [(alone, StoppedBy.ABANDONED)]
    engine.complete([alone], NOW)
    engine.cancel_all(StoppedBy.SHUTDOWN)
    assert engine._optional._lone is None, "its tensors are held by nobody"
    assert engine.next_step(NOW) is None


def test_who_was_alone_and_becomes_mandatory_runs_once():
    engine = Scheduler(costs(0.010, 0.010), 8)
    patient = ticket(arrived=NOW, budget_s=None, members=2, seed=1)
    engine.admit(patient, NOW)
    step = engine.next_step(NOW)
    patient.depth, patient.outlook = 1, (0.5, 0.6)
    engine.complete(step.tickets, NOW + 0.010)
    assert engine.next_step(NOW + 2 * PATIENCE_S).tickets == (patient,)
    assert engine.next_step(NOW + 2 * PATIENCE_S) is None


def test_who_was_alone_for_too_long_is_planned_anew():
    engine = Scheduler(costs(0.010, 0.010, 0.010), 8)
    alone = ticket(arrived=NOW, budget_s=0.025, members=3, seed=1)
    alone.depth, alone.outlook = 1, (0.5, 0.6, 0.7)
    engine.complete([alone], NOW)
    assert engine.next_step(NOW + 0.010).tickets == (alone,), "there is time for one member more, not for two"
    engine.complete([alone], NOW)
    assert engine.next_step(NOW + 0.020).tickets == (), "nobody is left: a rehearsal"
    assert [one.stopped_by for one in engine.take_settled()] == [StoppedBy.DEADLINE]


def test_a_batch_grows_while_a_row_is_worth_more_than_the_time_that_it_adds():
    """The first row takes 10 ms and each further one 5 ms, in which the other queue would gain 30 a second: 0.15."""
    engine = Scheduler(costs(0.010, 0.010, 0.010, per_row=0.005), 8)
    rows = [started(0.9, gain, seed) for seed, gain in enumerate((0.40, 0.30, 0.10))]
    other = ticket(arrived=NOW, budget_s=0.9, members=3, seed=9)
    other.depth, other.outlook = 2, (0.5, 0.8)
    engine.complete([*rows, other], NOW)
    assert engine.next_step(NOW).tickets == tuple(rows[:2])
    assert engine.next_step(NOW).tickets == (other,)
    assert engine.next_step(NOW).tickets == (rows[2],)
