from __future__ import annotations

import pytest

from service.engine.scheduler import Scheduler
from service.engine.ticket import StoppedBy
from service.engine.waiting import SWEEP_FROM, Places, Waiting
from tests.fakes import costs, ticket

NOW = 1000.0


def test_who_has_left_is_let_go_without_being_looked_for():
    places = Places()
    queue: Waiting[float] = Waiting(places)
    staying = [ticket(seed=seed) for seed in range(3)]
    for rank, one in enumerate(staying):
        queue.push(float(rank), one)
    for rank in range(10 * SWEEP_FROM):
        leaving = ticket()
        queue.push(float(rank), leaving)
        del places.taken[leaving]
        assert len(queue._heap) <= SWEEP_FROM
    assert [queue.pop() for _ in staying if queue.head()] == staying


def test_those_who_wait_are_never_swept_away():
    places = Places()
    queue: Waiting[float] = Waiting(places)
    waiting = [ticket() for _ in range(5 * SWEEP_FROM)]
    for rank, one in enumerate(waiting):
        queue.push(float(-rank), one)
    order = []
    while queue.head() is not None:
        order.append(queue.pop())
    assert order == waiting[::-1]


@pytest.mark.parametrize("reason", [StoppedBy.DEADLINE, StoppedBy.ABANDONED])
def test_under_lasting_overload_nobody_is_held_who_has_been_answered(reason: StoppedBy):
    # First members are always waiting, so that no optional step is ever looked for.
    engine = Scheduler(costs(0.001, 0.001), 1)
    now = NOW
    engine.admit(ticket(arrived=now, budget_s=1.0, members=2), now)
    for seed in range(20 * SWEEP_FROM):
        engine.admit(ticket(arrived=now, budget_s=1.0, members=2, seed=seed), now)
        step = engine.next_step(now)
        assert step.member == 0
        now += 0.001
        for one in step.tickets:
            one.depth = 1
        engine.complete(step.tickets, now)
        for one in step.tickets:
            engine.cancel(one, reason)
        engine.take_settled()
    assert engine.waiting == 1
    assert sum(len(queue._heap) for queue in engine._optional._queues.values()) <= SWEEP_FROM
