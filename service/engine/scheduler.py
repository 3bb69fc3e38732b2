"""Which member to run next, on whose rows. No thread, no clock, no tensor: `now` comes in, decisions go out.

A request is an imprecise computation: member 0 is its mandatory part, every further member is optional.

- Mandatory steps come before optional ones, and the more urgent request before the less urgent. A request
  without a deadline grows urgent with age, so nobody waits forever behind a stream of deadlines.
- Requests for the same member of the same model share a step, as far as the batch may grow and as long as
  nobody in it is predicted to be late because of the others.
- A member that is predicted to end after a request's deadline is not started for it: the request settles
  with the prefix it has, at once.

A prediction that turns work away may be wrong, and turned away work teaches nothing. So the scheduler asks for
a *rehearsal* of that member, on nobody's rows, when the device has nothing else to do.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from service.engine.cost import CostModel
from service.engine.ticket import StoppedBy, Ticket

PATIENCE_S = 1.0
"""A waiting request is as urgent as one whose deadline is this long after its arrival, or its own if earlier."""

REHEARSAL_INTERVAL_S = 1.0
"""Rehearsals of idle time are at least this far apart."""


@dataclass(frozen=True, slots=True)
class Step:
    """One run of one member. Without tickets it is a rehearsal on rows of zeros."""

    model: str
    member: int
    tickets: tuple[Ticket, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class Settled:
    """A request that gets no further member, and why."""

    ticket: Ticket
    stopped_by: StoppedBy


class _Queue:
    """Requests that wait for the same member of the same model, most urgent first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Ticket]] = []
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, ticket: Ticket) -> None:
        urgency = min(ticket.deadline.answer_by, ticket.deadline.arrived + PATIENCE_S)
        heapq.heappush(self._heap, (urgency, self._sequence, ticket))
        self._sequence += 1

    def head(self) -> Ticket:
        return self._heap[0][2]

    def urgency(self) -> float:
        return self._heap[0][0]

    def pop(self) -> Ticket:
        return heapq.heappop(self._heap)[2]


class Scheduler:
    """The policy as a state machine: admit, next_step, complete or fail, cancel; `take_settled` after each."""

    def __init__(self, costs: CostModel, max_batch_rows: int) -> None:
        self._costs = costs
        self._max_batch_rows = max_batch_rows
        self._queues: dict[tuple[str, int], _Queue] = {}
        self._live: set[Ticket] = set()
        self._settled: list[Settled] = []
        self._doubted: tuple[str, int, int] | None = None
        self._rehearsed_at = 0.0

    @property
    def waiting(self) -> int:
        """Requests that are neither settled nor in a step."""
        return len(self._live)

    def admit(self, ticket: Ticket, now: float) -> None:
        """Take a request in; it may settle at once, when not even its first member fits."""
        self._enqueue_or_settle(ticket, now)

    def next_step(self, now: float) -> Step | None:
        """What to run now; None while there is nothing to do. The step must be completed or failed."""
        while (key := self._most_urgent()) is not None:
            tickets = self._form_batch(key, now)
            if tickets:
                return Step(*key, tickets, sum(ticket.rows for ticket in tickets))
        return self._next_rehearsal(now)

    def complete(self, tickets: Iterable[Ticket], now: float) -> None:
        """Tickets of a step have published one more prefix: they wait for the next member, or settle."""
        for ticket in tickets:
            self._enqueue_or_settle(ticket, now)

    def fail(self, tickets: Iterable[Ticket]) -> None:
        """The member failed on the rows of these tickets: each keeps the prefix it had."""
        for ticket in tickets:
            self._settle(ticket, StoppedBy.MEMBER_FAILED)

    def cancel(self, ticket: Ticket, reason: StoppedBy) -> None:
        """Drop a waiting request; no step will hold it. One in a running step settles when the step ends."""
        if ticket in self._live:
            self._settle(ticket, reason)

    def cancel_all(self, reason: StoppedBy) -> None:
        """Drop everything that waits."""
        for ticket in list(self._live):
            self._settle(ticket, reason)

    def wake_at(self) -> float | None:
        """When `next_step` should be asked again although nothing new has come in; None: no need."""
        return None if self._doubted is None else self._rehearsed_at + REHEARSAL_INTERVAL_S

    def take_settled(self) -> list[Settled]:
        """What has settled since the last call."""
        settled, self._settled = self._settled, []
        return settled

    def _enqueue_or_settle(self, ticket: Ticket, now: float) -> None:
        if ticket.depth >= ticket.member_limit:
            whole = ticket.depth >= ticket.members_total
            self._settle(ticket, StoppedBy.COMPLETE if whole else StoppedBy.MAX_MEMBERS)
        elif self._in_time(ticket, ticket.rows, now):
            self._live.add(ticket)
            self._queues.setdefault((ticket.model, ticket.depth), _Queue()).push(ticket)
        else:
            self._turn_away(ticket)

    def _settle(self, ticket: Ticket, reason: StoppedBy) -> None:
        self._live.discard(ticket)
        self._settled.append(Settled(ticket, reason))

    def _turn_away(self, ticket: Ticket) -> None:
        self._settle(ticket, StoppedBy.DEADLINE)
        self._doubted = (ticket.model, ticket.depth, ticket.rows)

    def _in_time(self, ticket: Ticket, batch_rows: int, now: float) -> bool:
        """Whether the ticket's next member, in a batch of that size, is predicted to end in time."""
        cost_s = self._costs.predict(ticket.model, ticket.depth, batch_rows, now)
        return ticket.deadline.slack(now, cost_s) >= 0

    def _most_urgent(self) -> tuple[str, int] | None:
        """Key of the queue to serve: mandatory before optional, then by the urgency of its head."""
        for key, queue in list(self._queues.items()):
            if self._head(queue) is None:
                del self._queues[key]
        return min(self._queues, key=lambda key: (key[1] > 0, self._queues[key].urgency()), default=None)

    def _head(self, queue: _Queue) -> Ticket | None:
        """The most urgent request of a queue that has not been cancelled."""
        # Cancelled tickets stay in the heap until they come up: removal from the middle would cost a scan.
        while queue:
            if queue.head() in self._live:
                return queue.head()
            queue.pop()
        return None

    def _form_batch(self, key: tuple[str, int], now: float) -> tuple[Ticket, ...]:
        """Take tickets off the queue, most urgent first, until the next one would make somebody late."""
        queue = self._queues[key]
        batch: list[Ticket] = []
        rows = 0
        while (ticket := self._head(queue)) is not None:
            if not self._in_time(ticket, ticket.rows, now):
                queue.pop()
                self._turn_away(ticket)
                continue
            tightest = min([*batch[:1], ticket], key=lambda candidate: candidate.deadline.answer_by)
            grown = rows + ticket.rows
            if batch and (grown > self._max_batch_rows or not self._in_time(tightest, grown, now)):
                break
            queue.pop()
            # The tightest deadline stays in front: it is the one that a growing batch endangers.
            batch.insert(0 if tightest is ticket else len(batch), ticket)
            rows = grown
        self._live.difference_update(batch)
        return tuple(batch)

    def _next_rehearsal(self, now: float) -> Step | None:
        if self._doubted is None or now < self._rehearsed_at + REHEARSAL_INTERVAL_S:
            return None
        (model, member, rows), self._doubted = self._doubted, None
        self._rehearsed_at = now
        return Step(model, member, (), min(rows, self._max_batch_rows))
