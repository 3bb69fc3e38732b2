from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.connection import Connection
from service.engine.deadline import MonotonicClock
from service.engine.gate import Gate, Outcome, QueueFull
from service.engine.progress import refine
from service.engine.step import Settled
from service.engine.ticket import StoppedBy
from tests.fakes import costs
from tests.service.engine.test_gate import RecordingWorker, never, now, until_submitted
from tests.service.engine.test_ticket import A

pytestmark = pytest.mark.anyio


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    subject = Gate(costs(*[0.5] * 9), MonotonicClock(), max_queue_rows=4, max_queue_s=100.0, max_batch_rows=2)
    subject.open(asyncio.get_running_loop())
    yield subject
    assert subject.requests_in_flight == 0


async def test_each_prefix_then_the_outcome(gate: Gate):
    worker, one = RecordingWorker(), now()
    news = refine(gate, one, worker, never)
    for members in (1, 2):
        waiting = asyncio.ensure_future(anext(news))
        await until_submitted(worker)
        one.publish(one.depth, A, "mean")
        assert (await waiting) == one.published
        assert one.published.members == members
    waiting = asyncio.ensure_future(anext(news))
    one.publish(one.depth, A, "mean")
    gate.post([Settled(one, StoppedBy.COMPLETE)])
    last = await waiting
    assert isinstance(last, Outcome)
    assert (last.published.members, last.stopped_by) == (3, StoppedBy.COMPLETE), "the last prefix is the outcome"
    assert [one async for one in news] == []


async def test_a_slow_listener_gets_the_latest_prefix_and_nothing_piles_up(gate: Gate):
    worker, one = RecordingWorker(), now(members=9)
    news = refine(gate, one, worker, never)
    waiting = asyncio.ensure_future(anext(news))
    await until_submitted(worker)
    for _ in range(5):
        one.publish(one.depth, A, "mean")
    assert (await waiting).members == 5
    one.publish(one.depth, A, "mean")
    gate.post([Settled(one, StoppedBy.DEADLINE)])
    rest = [item async for item in news]
    assert [getattr(item, "members", None) for item in rest] in ([6, None], [None])
    assert rest[-1].published.members == 6


async def test_a_listener_that_leaves_gives_the_request_up(gate: Gate):
    worker, one = RecordingWorker(), now()
    news = refine(gate, one, worker, never)
    waiting = asyncio.ensure_future(anext(news))
    await until_submitted(worker)
    one.publish(one.depth, A, "mean")
    await waiting
    await news.aclose()
    while gate.requests_in_flight:
        await asyncio.sleep(0)
    assert worker.cancelled == [one]


async def test_a_hang_up_ends_it(gate: Gate):
    worker, one, connection = RecordingWorker(), now(), Connection()
    news = refine(gate, one, worker, connection.watch)
    waiting = asyncio.ensure_future(anext(news))
    await until_submitted(worker)
    connection.lost()
    assert (await waiting).stopped_by is StoppedBy.ABANDONED
    assert worker.cancelled == [one]


async def test_a_full_queue_is_told_at_the_first_step(gate: Gate):
    with pytest.raises(QueueFull):
        await anext(refine(gate, now(rows=5), RecordingWorker(), never))
