"""The event loop's side of the engine: admit a request, wait no longer than its deadline, take its answer.

A request that could be answered on an idle device, but not behind what is queued before it, is refused at once: the
queue holds only what is predicted to be served, so nobody waits for nothing.

The deadline needs nobody's cooperation here. An alarm ends the wait at `answer_by`, whatever the worker is doing, and
the last published prefix is the answer. Timers come late; `late_s` tells by how much, and belongs into the reserve.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from service.engine.alarm import Alarms
from service.engine.cost import CostModel
from service.engine.deadline import Clock
from service.engine.preemption import Preemption
from service.engine.step import IDLE, Running, Settled, Step
from service.engine.ticket import Published, StoppedBy, Ticket
from service.engine.turns import Turns
from service.engine.worker import Worker

Part = tuple[str, int, int]
"""Mandatory members: the model, the first of them, and the one after the last."""
Fate = Literal["answered", "failed", "cancelled"]
"""How an admitted request left the engine: with a prefix that is an answer, without one, or its client had gone."""
Watch = Callable[[Callable[[], object]], Callable[[], object]]
"""Has its argument called once a client has gone; it is not listened to any more when what it returns is called."""


class Books(Protocol):
    """Counts what comes in and what goes out: whatever is admitted has ended, or is in flight."""

    def admitted(self) -> None:
        """A request has been taken."""

    def ended(self, fate: Fate) -> None:
        """It is in the engine no more."""


class QueueFull(Exception):
    """No room for the request, and why; `retry_after_s` is how long the rows in flight are predicted to take."""

    def __init__(self, reason: str, retry_after_s: float) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended: the last finished prefix, None if there was none in time."""

    published: Published | None
    stopped_by: StoppedBy
    decided: float
    """When the wait should have ended: the engine settled the request, or its time was up."""


class Gate:
    """Bounded entrance to one worker. All methods but `post` belong to the event loop's thread."""

    def __init__(
        self,
        costs: CostModel,
        clock: Clock,
        max_queue_rows: int,
        max_queue_s: float,
        max_batch_rows: int,
    ) -> None:
        self._costs = costs
        self._preemption = Preemption(costs)
        self._clock = clock
        self._max_queue_rows = max_queue_rows
        self._max_queue_s = max_queue_s
        self._max_batch_rows = max_batch_rows
        self._alarms = Alarms(clock)
        self.turns = Turns()
        """Of the loop: each request that comes in takes one, and each that goes on to its answer."""
        self._unanswered: dict[Ticket, None] = {}
        self._waiting: dict[Ticket, asyncio.Future[StoppedBy]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self.rows_in_flight = 0
        self._in_flight: dict[tuple[str, int], int] = {}
        """Rows by model and how many members it has."""

    @property
    def requests_in_flight(self) -> int:
        """Requests admitted and not yet answered."""
        return len(self._waiting)

    def late_s(self) -> float:
        """How late timers come: to be kept back of a deadline beside the time for encoding."""
        return self._alarms.late_s()

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Bind to the loop on which requests will wait."""
        self._loop = loop

    def post(self, settled: Sequence[Settled]) -> None:
        """The worker's `on_settled`: wake those who wait. From any thread."""
        self.turns.announce(len(settled))
        self.tell(lambda: self._wake(settled))

    def tell(self, news: Callable[[], None]) -> None:
        """Call `news` on the loop, unless that has ended. From any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(news)

    def dismiss(self) -> None:
        """End every wait: who has a finished prefix gets it."""
        for future in self._waiting.values():
            _set(future, StoppedBy.SHUTDOWN)

    async def answer(self, ticket: Ticket, worker: Worker, hung_up: Watch, books: Books | None = None) -> Outcome:
        """Run the ticket through the worker and wait for its outcome; a running step may be given up for it.

        Args:
            ticket: the request.
            worker: the worker of the device it runs on.
            hung_up: tells when the client has gone.
            books: where it is counted, if anywhere: the service's own warm-up is not.

        Raises:
            QueueFull: the rows do not fit into the queue, or come too late to be answered behind it.
        """
        running = worker.running
        halt = self._preemption.halt(running, ticket, self._clock.now())
        refusal = self._refusal(ticket, running if halt is None else IDLE)
        if refusal is not None:
            raise refusal
        rows = ticket.rows
        future: asyncio.Future[StoppedBy] = asyncio.get_running_loop().create_future()
        # Whoever has nothing to say by `answer_by` may have it by the time a late timer would come, or still later.
        last = max(ticket.deadline.last, min(ticket.deadline.answer_by + self.late_s(), ticket.deadline.at))
        alarm = self._alarms.set(
            ticket.deadline.answer_by,
            last,
            lambda: ticket.answerable,
            lambda: self._end(ticket, future, StoppedBy.DEADLINE),
        )
        ignore = hung_up(lambda: _set(future, StoppedBy.ABANDONED))
        self._waiting[ticket] = future
        self._unanswered[ticket] = None
        self._count(ticket, rows)
        if books is not None:
            books.admitted()
        # Last of all: the worker's thread wakes up, and would have to wait for Python's lock.
        worker.submit(ticket)
        if halt is not None:
            halt()
        stopped_by = StoppedBy.ABANDONED
        try:
            stopped_by = await future
        finally:
            if books is not None:
                books.ended(_fate(stopped_by, ticket))
            ignore()
            alarm.cancel()
            self._count(ticket, -rows)
            self._unanswered.pop(ticket, None)
            if self._waiting.pop(ticket, None) is not None:
                # Whoever ended the wait, it was not the worker: what it still holds is of no use to anyone.
                worker.cancel(ticket, stopped_by)
        published = ticket.published
        due = ticket.deadline.answer_by if ticket.answerable else last
        decided = min(due, self._clock.now()) if ticket.ended is None else ticket.ended
        return Outcome(published, _refine(stopped_by, published, ticket), decided)

    def _wake(self, settled: Sequence[Settled]) -> None:
        for one in settled:
            future = self._waiting.pop(one.ticket, None)
            if future is not None:
                self._end(one.ticket, future, one.stopped_by)

    def _end(self, ticket: Ticket, future: asyncio.Future[StoppedBy], stopped_by: StoppedBy) -> None:
        """End a wait, when it is its answer's turn."""
        self.turns.answer(ticket.deadline.answer_by, lambda: _set(future, stopped_by))

    def _refusal(self, ticket: Ticket, running: Running) -> QueueFull | None:
        if running is IDLE and not self.rows_in_flight and ticket.rows <= self._max_queue_rows:
            # Nothing is before it: whether it can be done at all, the scheduler says.
            return None
        backlog_s = self._backlog_s()
        if self.rows_in_flight + ticket.rows > self._max_queue_rows or backlog_s > self._max_queue_s:
            return QueueFull("The queue is full: send the request again later.", backlog_s)
        now, due = self._clock.now(), ticket.deadline.last
        hopeful = max(now, running.until) + self._mandatory_before_s(ticket, now, running.step) <= due
        # Who is hopeless on an idle device too is let in: the scheduler says so, and whether it still is.
        own = ticket.model, 0, ticket.member_minimum
        if not hopeful and now + self._mandatory_s(own, ticket.rows, ticket.rows, self._costs.usually) <= due:
            return QueueFull(
                "No member can be finished by the deadline behind what is queued: "
                "send the request again later, or allow it more time.",
                backlog_s,
            )
        return None

    def _mandatory_before_s(self, ticket: Ticket, now: float, running: Step | None) -> float:
        """Seconds that the mandatory parts usually take that are more urgent than the ticket's, and its own.

        What each of many steps stays within nearly always, all of them together hardly ever take; and who is turned
        away has no answer for certain. Who is due already will not be run, and what runs is over before all that.
        """
        own = ticket.model, 0, ticket.member_minimum
        rows, largest = {own: ticket.rows}, {own: ticket.rows}
        in_step = set(running.tickets) if running is not None else ()
        for other in list(self._unanswered):
            if other.depth >= other.member_minimum:
                del self._unanswered[other]
            elif (-other.priority, other.deadline.answer_by) <= (-ticket.priority, ticket.deadline.answer_by):
                done = running.members.stop if running is not None and other in in_step else other.depth
                if done < other.member_minimum and other.deadline.last > now:
                    part = other.model, done, other.member_minimum
                    rows[part] = rows.get(part, 0) + other.rows
                    largest[part] = max(largest.get(part, 0), other.rows)
        return sum(self._mandatory_s(part, rows[part], largest[part], self._costs.usually) for part in rows)

    def _mandatory_s(self, part: Part, rows: int, largest: int, seconds: Callable[[str, int, int], float]) -> float:
        """Seconds of the members of a part, on `rows` rows in full batches.

        Args:
            part: which members.
            rows: of all tickets that must have them.
            largest: rows of the one of them that has most: they are not parted.
            seconds: of a member of a model on so many rows.
        """
        model, first, stop = part
        batch = max(largest, self._max_batch_rows)
        full, rest = divmod(rows, batch)
        return sum(
            full * seconds(model, member, batch) + (seconds(model, member, rest) if rest else 0.0)
            for member in range(first, stop)
        )

    def _count(self, ticket: Ticket, rows: int) -> None:
        key = ticket.model, ticket.members_total
        self.rows_in_flight += rows
        self._in_flight[key] = self._in_flight.get(key, 0) + rows
        if not self._in_flight[key]:
            del self._in_flight[key]

    def _backlog_s(self) -> float:
        """Predicted seconds until the rows in flight are through all members of their models, in full batches."""
        return sum(
            rows
            / self._max_batch_rows
            * sum(self._costs.typical(model, member, self._max_batch_rows) for member in range(members))
            for (model, members), rows in self._in_flight.items()
        )


def _set(future: asyncio.Future[StoppedBy], stopped_by: StoppedBy) -> None:
    if not future.done():
        future.set_result(stopped_by)


def _fate(stopped_by: StoppedBy, ticket: Ticket) -> Fate:
    if stopped_by is StoppedBy.ABANDONED:
        return "cancelled"
    return "answered" if ticket.answerable else "failed"


def _refine(stopped_by: StoppedBy, published: Published | None, ticket: Ticket) -> StoppedBy:
    """The timer can win against the news that the last member is done: the answer is whole all the same."""
    if stopped_by is StoppedBy.DEADLINE and published is not None and published.members == ticket.member_limit:
        return ticket.limited_by
    return stopped_by
