"""Which member to run next, on whose rows. No thread, no clock, no tensor: `now` comes in, decisions go out.

A request is an imprecise computation: its first member (or as many as it demands) is mandatory, the others are
optional.

- Mandatory steps come before optional ones, earliest deadline first. A request without a deadline is optional work
  after its first member, until it has waited for PATIENCE_S: then its members are mandatory too, so nobody waits
  forever.
- Optional steps are rated by expected right answers per second, over the best way that begins with them
  (`plan`), less what they are expected to cost requests that come while they run (`arrivals`). The best one runs.
- Requests for the same member of the same model share a step, as long as nobody in it is predicted to be late
  because of the others and the further rows are worth more than what else the device could do.
- A member that is predicted to end after a request's deadline is not started for it.
- Members without a path between them may share an optional step, side by side (`width`).

The device never idles while somebody waits for a step that ends in time: neither to fill a batch nor to spare it for
those to come. What a step may cost those ranks it, no more.

The chunks of a stream are requests like others, but for a member that is *behind* (`stream`): its answer costs all the
runs that it missed. One that cannot be had in time is no loss for ever: the member is caught up when the device has
nothing else to do, or, if it is the first, nothing mandatory (`arrears`).

A prediction that turns work away may be wrong, and turned away work teaches nothing. So the scheduler asks for
a *rehearsal* of that member, on nobody's rows, when the device has nothing else to do.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence

from service.engine.arrears import Arrears
from service.engine.arrivals import Arrivals
from service.engine.cost import CostModel
from service.engine.plan import best_move
from service.engine.step import Key, Settled, Step
from service.engine.ticket import StoppedBy, Ticket
from service.engine.waiting import Waiting
from service.engine.width import Width

PATIENCE_S = 1.0
"""A waiting request is as urgent as one whose deadline is this long after its arrival, or its own if earlier."""

REHEARSAL_INTERVAL_S = 1.0
"""Rehearsals of idle time are at least this far apart."""

MISFITS = 8
"""Requests that may be passed over while an optional batch grows, because their deadlines do not suit it."""

ROUNDING_S = 1e-6
"""Differences of instants below this are rounding."""


class Scheduler:
    """The policy as a state machine: admit, next_step, complete or fail, cancel; `take_settled` after each."""

    def __init__(self, costs: CostModel, max_batch_rows: int) -> None:
        self._costs = costs
        self._max_batch_rows = max_batch_rows
        self._arrivals = Arrivals()
        self._width = Width(costs, self._arrivals)
        self._arrears = Arrears(max_batch_rows)
        self._places: dict[Ticket, int] = {}
        self._mandatory: dict[Key, Waiting[tuple[float, float]]] = {}
        self._optional: dict[Key, Waiting[float]] = {}
        self._patience: list[tuple[float, int, Ticket]] = []
        self._next_place = 0
        self._settled: list[Settled] = []
        self._doubted: tuple[str, int, int] | None = None
        self._rehearsed_at = 0.0

    @property
    def waiting(self) -> int:
        """Requests that are neither settled nor in a step."""
        return len(self._places)

    def admit(self, ticket: Ticket, now: float) -> None:
        """Take in a request; it settles at once when not even its first member fits."""
        self._arrears.drop(ticket)
        slack_s = ticket.deadline.slack(now)
        if math.isfinite(slack_s):
            self._arrivals.observe(now, slack_s, ticket.expected, self._predict_each(ticket, now))
        else:
            heapq.heappush(self._patience, (ticket.deadline.arrived + PATIENCE_S, self._new_place(), ticket))
        self._enqueue_or_settle(ticket, now)

    def next_step(self, now: float) -> Step | None:
        """What to run now; None while there is nothing to do. The step must be completed or failed."""
        self._lose_patience(now)
        while (urgent := self._most_urgent()) is not None:
            batch = self._mandatory_batch(urgent, now)
            if batch:
                return _step(urgent, batch)
        if self._arrears and (behind := self._arrears.take(first=True)):
            return _catch_up(behind)
        valuable = self._most_valuable(now)
        if valuable is not None:
            key, rate_elsewhere = valuable
            batch = self._optional_batch(key, rate_elsewhere, now)
            return _step(key, batch, self._width.of(key, batch, now, alone=not self.waiting))
        if self._arrears:
            return _catch_up(self._arrears.take(first=False))
        return self._next_rehearsal(now)

    def complete(self, tickets: Iterable[Ticket], now: float) -> None:
        """Tickets of a step have published one more prefix: they wait for their next member, or settle."""
        for ticket in tickets:
            if ticket.in_arrears:
                self._arrears.add(ticket)
            else:
                self._enqueue_or_settle(ticket, now)

    def fail(self, tickets: Iterable[Ticket]) -> None:
        """The member failed on the rows of these tickets: each keeps the prefix it had."""
        for ticket in tickets:
            # One in arrears is tried again with the stream's next chunk.
            if not ticket.in_arrears:
                self._settle(ticket, StoppedBy.MEMBER_FAILED)

    def cancel(self, ticket: Ticket, reason: StoppedBy) -> None:
        """Drop a waiting request; no step will hold it. One in a running step settles when the step ends."""
        if ticket in self._places:
            self._settle(ticket, reason)
        if reason is not StoppedBy.DEADLINE:
            self._arrears.drop(ticket)

    def cancel_all(self, reason: StoppedBy) -> None:
        """Drop everything that waits."""
        for ticket in list(self._places):
            self._settle(ticket, reason)
        self._arrears.clear()
        # Entries of those who had left before stay in the heaps until they come up; now nothing will.
        for heap in (self._patience, self._mandatory, self._optional):
            heap.clear()

    def wake_at(self) -> float | None:
        """When `next_step` should be asked again although nothing new has come in; None: no need."""
        while self._patience and self._patience[0][2] not in self._places:
            heapq.heappop(self._patience)
        alarms = [due for due, _, _ in self._patience[:1]]
        if self._doubted is not None:
            alarms.append(self._rehearsed_at + REHEARSAL_INTERVAL_S)
        return min(alarms, default=None)

    def take_settled(self) -> list[Settled]:
        """What has settled since the last call."""
        settled, self._settled = self._settled, []
        return settled

    def _enqueue_or_settle(self, ticket: Ticket, now: float) -> None:
        if ticket.exit is not None and not ticket.rows:
            self._settle(ticket, ticket.exit.reason)
        elif ticket.depth >= ticket.member_limit:
            self._settle(ticket, ticket.limited_by)
        elif ticket.depth >= ticket.member_minimum and not _impatient(ticket, now):
            self._enqueue_optional(ticket, now)
        elif self._in_time(ticket, ticket.depth, now):
            self._enqueue_mandatory(ticket)
        else:
            self._turn_away(ticket)

    def _enqueue_mandatory(self, ticket: Ticket) -> None:
        key = ticket.model, ticket.depth
        if key not in self._mandatory:
            self._mandatory[key] = Waiting(self._places)
        urgency = min(ticket.deadline.answer_by, ticket.deadline.arrived + PATIENCE_S)
        self._mandatory[key].push((-ticket.priority, urgency), self._new_place(), ticket)

    def _enqueue_optional(self, ticket: Ticket, now: float) -> None:
        move = best_move(ticket, ticket.deadline.slack(now), self._predict_each(ticket, now))
        if move is None:
            self._turn_away(ticket)
            return
        key = ticket.model, move.member
        if key not in self._optional:
            self._optional[key] = Waiting(self._places)
        ticket.way_until = ticket.deadline.answer_by - move.seconds + ROUNDING_S
        self._optional[key].push(-move.rate, self._new_place(), ticket)

    def _new_place(self) -> int:
        self._next_place += 1
        return self._next_place

    def _settle(self, ticket: Ticket, reason: StoppedBy) -> None:
        self._places.pop(ticket, None)
        self._settled.append(Settled(ticket, reason))
        if reason is StoppedBy.DEADLINE:
            self._arrears.add(ticket)

    def _turn_away(self, ticket: Ticket) -> None:
        self._settle(ticket, StoppedBy.DEADLINE)
        self._doubted = (ticket.model, ticket.depth, ticket.rows)

    def _predict_each(self, ticket: Ticket, now: float) -> list[float]:
        """Seconds until each member's answer on the ticket's rows alone: more than one run where it is behind."""
        each = self._run_s(ticket, now)
        return each if ticket.part is None else ticket.part.price(each)

    def _run_s(self, ticket: Ticket, now: float) -> list[float]:
        """Seconds for one run of each member on the ticket's rows alone."""
        return self._costs.predict_each(ticket.model, ticket.rows, now)

    def _in_time(self, ticket: Ticket, member: int, now: float) -> bool:
        """Whether the ticket alone is predicted to have that member's answer in time."""
        return ticket.deadline.slack(now, self._predict_each(ticket, now)[member]) >= 0

    def _lose_patience(self, now: float) -> None:
        """Requests without a deadline that have waited long enough become mandatory."""
        while self._patience and self._patience[0][0] <= now:
            ticket = heapq.heappop(self._patience)[2]
            # One that is in a step now is found impatient when it comes back.
            if ticket in self._places:
                self._enqueue_mandatory(ticket)

    def _most_urgent(self) -> Key | None:
        """The mandatory queue to serve."""
        if not self._mandatory:
            return None
        ranks = {}
        for key, queue in list(self._mandatory.items()):
            head = queue.head()
            if head is None:
                del self._mandatory[key]
            else:
                ranks[key] = head[0]
        return min(ranks, key=ranks.__getitem__) if ranks else None

    def _mandatory_batch(self, key: Key, now: float) -> tuple[Ticket, ...]:
        """Take tickets off the queue, most urgent first, until the next one would make somebody late."""
        queue = self._mandatory[key]
        batch: list[Ticket] = []
        rows, due = 0, self._others_must_start(key, now)
        while rows < self._max_batch_rows and (head := queue.head()) is not None:
            _, ticket = head
            if not self._in_time(ticket, key[1], now):
                queue.pop()
                self._turn_away(ticket)
                continue
            grown, sooner = rows + ticket.rows, min(due, ticket.deadline.answer_by)
            if batch and (grown > self._max_batch_rows or sooner - now - self._costs.predict(*key, grown, now) < 0):
                break
            batch.append(queue.pop())
            rows, due = grown, sooner
        return tuple(batch)

    def _others_must_start(self, key: Key, now: float) -> float:
        """When the most urgent requests of the other mandatory queues must start to be in time."""
        latest = math.inf
        for other, queue in self._mandatory.items():
            head = queue.head()
            if other != key and head is not None:
                latest = min(latest, head[1].deadline.answer_by - self._predict_each(head[1], now)[other[1]])
        return latest

    def _optional_head(self, key: Key, now: float) -> tuple[float, Ticket] | None:
        """Rate and ticket of the best in a queue; those whose way no longer fits are planned anew."""
        queue = self._optional[key]
        while (head := queue.head()) is not None:
            rank, ticket = head
            if now <= ticket.way_until and self._in_time(ticket, key[1], now):
                return -rank, ticket
            self._enqueue_optional(queue.pop(), now)
        return None

    def _most_valuable(self, now: float) -> tuple[Key, float] | None:
        """The optional queue to serve, and the rate of the next best one; None if nobody waits for an optional step.

        What a step is expected to cost arrivals still to come ranks it, but never leaves the device idle: an answer
        that stayed shallow for somebody who then did not come would be nobody's gain.
        """
        places = -1
        # Those planned anew go to queues that may have been looked at before.
        while places != self._next_place:
            places = self._next_place
            best_key, best, second = None, -math.inf, -math.inf
            for key, queue in list(self._optional.items()):
                rank = queue.best_rank
                if rank is not None and -rank <= second:
                    continue
                head = self._optional_head(key, now)
                if head is None:
                    del self._optional[key]
                    continue
                rate, ticket = head
                duration_s = self._run_s(ticket, now)[key[1]]
                net = rate - self._arrivals.loss(duration_s) / duration_s
                if best_key is None or net > best:
                    best_key, best, second = key, net, best
                elif net > second:
                    second = net
        return None if best_key is None else (best_key, max(second, 0.0))

    def _optional_batch(self, key: Key, rate_elsewhere: float, now: float) -> tuple[Ticket, ...]:
        """Take tickets off the queue, best first, while their rows are worth the time that they add."""
        queue = self._optional[key]
        first = queue.pop()
        batch, rows, due = [first], first.rows, first.deadline.answer_by
        if rows >= self._max_batch_rows:
            return (first,)
        duration_s = self._costs.predict(*key, rows, now)
        loss = self._arrivals.loss(duration_s)
        misfits: list[tuple[float, Ticket]] = []
        while len(misfits) < MISFITS and rows < self._max_batch_rows:
            head = self._optional_head(key, now)
            if head is None:
                break
            rate, ticket = head
            grown, sooner = rows + ticket.rows, min(due, ticket.deadline.answer_by)
            if grown > self._max_batch_rows:
                break
            grown_s = self._costs.predict(*key, grown, now)
            if sooner - now - grown_s < 0:
                misfits.append((rate, queue.pop()))
                continue
            gain = rate * self._run_s(ticket, now)[key[1]]
            grown_loss = self._arrivals.loss(grown_s)
            if gain - (grown_loss - loss) < rate_elsewhere * (grown_s - duration_s):
                break
            batch.append(queue.pop())
            rows, due, duration_s, loss = grown, sooner, grown_s, grown_loss
        for rate, ticket in misfits:
            queue.push(-rate, self._new_place(), ticket)
        return tuple(batch)

    def _next_rehearsal(self, now: float) -> Step | None:
        if self._doubted is None or now < self._rehearsed_at + REHEARSAL_INTERVAL_S:
            return None
        (model, member, rows), self._doubted = self._doubted, None
        self._rehearsed_at = now
        return Step(model, member, (), min(rows, self._max_batch_rows))


def _impatient(ticket: Ticket, now: float) -> bool:
    """Whether a request without a deadline has waited so long that its members have become mandatory."""
    return math.isinf(ticket.deadline.answer_by) and ticket.deadline.arrived + PATIENCE_S <= now


def _step(key: Key, tickets: tuple[Ticket, ...], width: int = 1) -> Step:
    return Step(*key, tickets, sum(ticket.rows for ticket in tickets), width)


def _catch_up(tickets: Sequence[Ticket]) -> Step:
    """The next run of a member that is behind."""
    return _step((tickets[0].model, tickets[0].depth), tuple(tickets))
