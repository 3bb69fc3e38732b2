from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from unittest.mock import Mock

import pytest

from service.connection import Connection
from service.engine.deadline import Deadline, MonotonicClock
from service.engine.gate import Fate, Gate, QueueFull
from service.engine.halt import Halt
from service.engine.step import IDLE, Running, Settled, Step
from service.engine.ticket import StoppedBy, Ticket
from tests.fakes import costs, ticket
from tests.service.engine.test_ticket import A

pytestmark = pytest.mark.anyio


class RecordingWorker:
    """A worker that does nothing by itself."""

    def __init__(self) -> None:
        self.submitted: list[Ticket] = []
        self.cancelled: list[Ticket] = []
        self.running = IDLE

    def run_until(self, instant: float, *tickets: Ticket, member: int = 0) -> None:
        self.running = Running(instant, Step("tiny/1", member, tickets, sum(one.rows for one in tickets)))

    def submit(self, one: Ticket) -> None:
        self.submitted.append(one)

    def cancel(self, one: Ticket, reason: StoppedBy) -> None:
        self.cancelled.append(one)


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    subject = Gate(costs(0.5, 0.5, 0.5), MonotonicClock(), max_queue_rows=4, max_queue_s=100.0, max_batch_rows=2)
    subject.open(asyncio.get_running_loop())
    yield subject
    assert subject.requests_in_flight == 0
    assert subject.rows_in_flight == 0


def never(gone: Callable[[], object]) -> Callable[[], object]:
    return lambda: None


def now(**changes: object) -> Ticket:
    return ticket(arrived=MonotonicClock().now(), **changes)


async def until_submitted(worker: RecordingWorker) -> None:
    while not worker.submitted:
        await asyncio.sleep(0)


async def test_the_engine_ends_the_wait(gate: Gate):
    worker, one = RecordingWorker(), now()
    waiting = asyncio.create_task(gate.answer(one, worker, never))
    await until_submitted(worker)
    one.publish(one.depth, A, "mean")
    gate.post([Settled(one, StoppedBy.MEMBER_FAILED)])
    outcome = await waiting
    assert (outcome.published, outcome.stopped_by) == (one.published, StoppedBy.MEMBER_FAILED)
    assert worker.cancelled == []


async def test_the_deadline_ends_the_wait_although_the_engine_is_silent(gate: Gate):
    worker, one = RecordingWorker(), now(budget_s=0.02)
    one.publish(one.depth, A, "mean")
    outcome = await gate.answer(one, worker, never)
    assert (outcome.published.members, outcome.stopped_by) == (1, StoppedBy.DEADLINE)
    assert worker.cancelled == [one], "its further members are of no use to anyone"


async def test_no_prefix_at_the_deadline_is_no_answer(gate: Gate):
    outcome = await gate.answer(now(budget_s=0.001), RecordingWorker(), never)
    assert (outcome.published, outcome.stopped_by) == (None, StoppedBy.DEADLINE)


class Books:
    """Remembers how requests ended."""

    def __init__(self) -> None:
        self.fates: list[Fate] = []

    def admitted(self) -> None:
        """Nothing to remember."""

    def ended(self, fate: Fate) -> None:
        self.fates.append(fate)


@pytest.mark.parametrize(("minimum", "fate"), [(1, "answered"), (2, "failed")])
async def test_a_prefix_that_is_too_short_is_counted_as_none(gate: Gate, minimum: int, fate: Fate):
    books, one = Books(), now(budget_s=0.02, member_minimum=minimum)
    one.publish(one.depth, A, "mean")
    await gate.answer(one, RecordingWorker(), never, books)
    assert books.fates == [fate]


@pytest.mark.parametrize(("limit", "stopped_by"), [(3, StoppedBy.COMPLETE), (2, StoppedBy.MAX_MEMBERS)])
async def test_a_whole_answer_is_whole_even_if_the_timer_was_first(gate: Gate, limit: int, stopped_by: StoppedBy):
    one = now(budget_s=0.001, limit=limit)
    for _ in range(limit):
        one.publish(one.depth, A, "mean")
    assert (await gate.answer(one, RecordingWorker(), never)).stopped_by is stopped_by


async def test_a_hang_up_ends_the_wait_and_frees_the_work(gate: Gate):
    worker, one, connection = RecordingWorker(), now(), Connection()
    waiting = asyncio.create_task(gate.answer(one, worker, connection.watch))
    await until_submitted(worker)
    connection.lost()
    assert (await waiting).stopped_by is StoppedBy.ABANDONED
    assert worker.cancelled == [one]


async def test_a_cancelled_handler_frees_its_work(gate: Gate):
    worker, one = RecordingWorker(), now()
    waiting = asyncio.create_task(gate.answer(one, worker, never))
    await until_submitted(worker)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert worker.cancelled == [one]


async def test_rows_beyond_the_queue_are_refused_with_the_time_the_backlog_takes(gate: Gate):
    worker, first = RecordingWorker(), now(rows=3)
    waiting = asyncio.create_task(gate.answer(first, worker, never))
    await until_submitted(worker)
    with pytest.raises(QueueFull) as full:
        await gate.answer(now(rows=2), worker, never)
    # Three members of half a second for each batch of two rows; three rows are in flight.
    assert full.value.retry_after_s == pytest.approx(3 * 0.5 * 3 / 2)
    gate.post([Settled(first, StoppedBy.SHUTDOWN)])
    await waiting
    assert worker.submitted == [first]


async def test_news_of_a_request_that_has_left_is_ignored(gate: Gate):
    one = now(budget_s=0.001)
    await gate.answer(one, RecordingWorker(), never)
    gate.post([Settled(one, StoppedBy.COMPLETE)])
    await asyncio.sleep(0)


async def test_several_answers_on_their_way_are_a_crowd_for_the_loop(gate: Gate):
    worker, company = RecordingWorker(), [now(seed=seed) for seed in range(2)]
    waiting = [asyncio.create_task(gate.answer(one, worker, never)) for one in company]
    while len(worker.submitted) < 2:
        await asyncio.sleep(0)
    assert not gate.turns.crowded
    gate.post([Settled(one, StoppedBy.SHUTDOWN) for one in company])
    assert gate.turns.crowded, "what the device does next, it does beside them"
    await asyncio.gather(*waiting)
    await asyncio.sleep(0)
    assert not gate.turns.crowded


async def refuse(gate: Gate, worker: RecordingWorker, one: Ticket) -> bool:
    """Whether the gate refuses a request at once; one that is let in is given up again."""
    waiting = asyncio.ensure_future(gate.answer(one, worker, never))
    submitted = len(worker.submitted)
    while len(worker.submitted) == submitted and not waiting.done():
        await asyncio.sleep(0)
    waiting.cancel()
    (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
    return isinstance(outcome, QueueFull)


@asynccontextmanager
async def queued(gate: Gate, worker: RecordingWorker, one: Ticket) -> AsyncIterator[None]:
    """Behind this request; first members take half a second in batches of two rows."""
    waiting = asyncio.create_task(gate.answer(one, worker, never))
    await until_submitted(worker)
    yield
    gate.post([Settled(one, StoppedBy.SHUTDOWN)])
    await waiting


async def test_who_would_come_too_late_behind_the_queue_is_refused_at_once(gate: Gate):
    worker, first = RecordingWorker(), now(budget_s=60.0, rows=2)
    async with queued(gate, worker, first):
        assert await refuse(gate, worker, now(budget_s=60.5)) is False, "0.5 s of others, 0.5 s of its own"
        worker.run_until(MonotonicClock().now() + 59.8)
        assert await refuse(gate, worker, now(budget_s=60.5)) is True, "the device is busy until it is too late"
        assert await refuse(gate, worker, now(budget_s=60.5, priority=1)) is False, "higher priority does not queue"
        assert await refuse(gate, worker, now(budget_s=0.4)) is False, "too short on an idle device: the scheduler's"
        first.depth = 1
        assert await refuse(gate, worker, now(budget_s=60.5)) is False, "who has an answer is in nobody's way"


async def test_what_runs_is_not_waited_for_twice(gate: Gate):
    worker, running, minute = RecordingWorker(), now(budget_s=60.5, rows=2), MonotonicClock().now() + 60.0
    async with queued(gate, worker, running):
        worker.run_until(minute, running)
        assert await refuse(gate, worker, now(budget_s=60.7)) is False, "0.5 s after the step that runs"
        worker.run_until(minute)
        assert await refuse(gate, worker, now(budget_s=60.7)) is True, "it still has to be run"


async def test_of_members_that_are_mandatory_those_that_are_done_or_run_are_left_out(gate: Gate):
    worker, running = RecordingWorker(), now(budget_s=60.5, member_minimum=3)
    async with queued(gate, worker, running):
        running.depth = 1
        worker.run_until(MonotonicClock().now() + 60.0, running, member=1)
        assert await refuse(gate, worker, now(budget_s=60.9)) is True, "0.5 s for the last of three, and its own"
        assert await refuse(gate, worker, now(budget_s=61.2)) is False


async def test_what_runs_is_given_up_for_who_would_be_refused_behind_it(gate: Gate):
    """An optional step of half a second, as far as is known, has just begun."""
    worker, began = RecordingWorker(), MonotonicClock().now() + 60.0
    refined, halt = now(budget_s=120.0), Halt()
    refined.depth, refined.outlook = 1, (0.7, 0.75, 0.8)
    step = Step("tiny/1", 1, (refined,), 1)
    worker.running = Running(began + 60.0, step, began)
    assert await refuse(gate, worker, now(budget_s=60.9)) is True
    worker.running = Running(began + 60.0, step._replace(halt=halt), began)
    assert await refuse(gate, worker, now(budget_s=150.0)) is False
    assert not halt.called, "who has time for both waits"
    assert await refuse(gate, worker, now(budget_s=60.9)) is False
    assert halt.called
    assert worker.submitted[-1].deadline.at < began + 1.0, "it was told of before the step was given up"


async def test_who_is_due_already_is_in_nobodys_way(gate: Gate):
    worker, late = RecordingWorker(), now(budget_s=60.0, rows=2)
    async with queued(gate, worker, late):
        worker.run_until(MonotonicClock().now() + 60.0)
        assert await refuse(gate, worker, now(budget_s=60.7)) is True
        late.deadline = Deadline.after(MonotonicClock().now() - 60.0, 60.0, 0.0)
        assert await refuse(gate, worker, now(budget_s=60.7)) is False


async def test_a_backlog_of_too_many_seconds_is_full():
    subject = Gate(costs(0.5, 0.5, 0.5), MonotonicClock(), max_queue_rows=99, max_queue_s=2.0, max_batch_rows=2)
    subject.open(asyncio.get_running_loop())
    worker, first = RecordingWorker(), now(rows=3)
    waiting = asyncio.create_task(subject.answer(first, worker, never))
    await until_submitted(worker)
    with pytest.raises(QueueFull) as full:
        await subject.answer(now(), worker, never)
    assert full.value.retry_after_s == pytest.approx(2.25)
    subject.post([Settled(first, StoppedBy.SHUTDOWN)])
    await waiting


async def test_others_are_expected_to_take_what_they_usually_do():
    # One step in five takes four times as long as the others: that is what a prediction has to reckon with.
    model = costs(0.5, 0.5, 0.5)
    for step in range(60):
        model.observe("tiny/1", 0, 1, 2.0 if step % 5 == 0 else 0.5, MonotonicClock().now())
    subject = Gate(model, MonotonicClock(), max_queue_rows=99, max_queue_s=99.0, max_batch_rows=2)
    subject.open(asyncio.get_running_loop())
    worker = RecordingWorker()
    waiting = [asyncio.create_task(subject.answer(now(budget_s=60.0, rows=2), worker, never)) for _ in range(3)]
    while len(worker.submitted) < 3:
        await asyncio.sleep(0)
    worker.run_until(MonotonicClock().now() + 57.0)
    assert await refuse(subject, worker, now(budget_s=61.0)) is False, "2 s for four steps, not 8"
    worker.run_until(MonotonicClock().now() + 59.5)
    assert await refuse(subject, worker, now(budget_s=61.0)) is True, "not 1.5 s either"
    subject.post([Settled(one, StoppedBy.SHUTDOWN) for one in worker.submitted])
    await asyncio.gather(*waiting)


async def test_the_backlog_is_that_of_the_models_whose_rows_are_in_flight():
    model_costs = costs(0.01, model="light/1")
    model_costs.add("heavy/1", costs(1.0, 1.0)._members["tiny/1"])
    subject = Gate(model_costs, MonotonicClock(), max_queue_rows=99, max_queue_s=3.0, max_batch_rows=2)
    subject.open(asyncio.get_running_loop())
    worker = RecordingWorker()
    waiting = [asyncio.create_task(subject.answer(now(model="light/1", members=1, rows=40), worker, never))]
    await until_submitted(worker)
    assert await refuse(subject, worker, now(model="heavy/1", members=2)) is False, "0.2 s"
    worker.submitted.clear()
    waiting.append(asyncio.create_task(subject.answer(now(model="heavy/1", members=2, rows=4), worker, never)))
    await until_submitted(worker)
    with pytest.raises(QueueFull) as full:
        await subject.answer(now(model="light/1", members=1), worker, never)
    assert full.value.retry_after_s == pytest.approx(0.2 + 4.0)
    for one in list(subject._waiting):
        subject.post([Settled(one, StoppedBy.SHUTDOWN)])
    await asyncio.gather(*waiting)
    assert subject._backlog_s() == 0


@pytest.mark.parametrize(("late_s", "waited_s"), [(0.0, 57.0), (1.0, 57.0), (4.0, 59.0), (9.0, 60.0)])
async def test_who_has_no_answer_is_waited_for_as_long_as_it_may_have_one_and_never_longer_than_the_deadline(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, late_s: float, waited_s: float
):
    aimed = []
    monkeypatch.setattr(gate, "late_s", lambda: late_s)
    monkeypatch.setattr(gate._alarms, "set", lambda aim, due, *_: aimed.append((aim, due)) or Mock())
    one = now()
    one.deadline = Deadline.after(one.deadline.arrived, 60.0, reserve_s=5.0, least_s=3.0)
    task = asyncio.create_task(gate.answer(one, worker := RecordingWorker(), never))
    await until_submitted(worker)
    assert aimed == [(one.deadline.answer_by, pytest.approx(one.deadline.arrived + waited_s))]
    gate.post([Settled(one, StoppedBy.SHUTDOWN)])
    await task


async def test_one_slow_step_in_a_quiet_hour_turns_nobody_away():
    model_costs, idle = costs(0.001), RecordingWorker()
    model_costs.observe("tiny/1", 0, 1, 0.060, MonotonicClock().now())
    subject = Gate(model_costs, MonotonicClock(), max_queue_rows=4, max_queue_s=100.0, max_batch_rows=2)
    subject.open(asyncio.get_running_loop())
    assert await refuse(subject, idle, now(budget_s=0.05, members=1)) is False
