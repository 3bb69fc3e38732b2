"""Which member to run next, on whose rows. No thread, no clock, no tensor: `now` comes in, decisions go out.

A request is an imprecise computation: its first member (or as many as it demands) is mandatory, the others are
optional.

- Mandatory steps come before optional ones, earliest deadline first as long as that serves everybody (`mandatory`). A
  request without a deadline is optional work after its first member, until it has waited for PATIENCE_S: then its
  members are mandatory too, so nobody waits forever.
- Of the optional steps the one that gains most right answers per second runs, or one that gains a little less and
  cannot wait (`optional`).
- Requests for the same member of the same model share a step, as long as nobody in it is predicted to be late
  because of the others and the further rows are worth more than what else the device could do.
- A member that is predicted to end after a request's deadline is not started for it. A mandatory one is not turned
  away before it is more likely than not to end too late, and runs behind those that are sure to be in time.
- Members without a path between them may share an optional step, side by side (`width`); small ones that follow each
  other, in one go (`grain`).
- An optional step that runs is given up for a newcomer who would lose more by waiting for its end (`preemption`).

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
from service.engine.grain import Grain
from service.engine.halt import Halt
from service.engine.mandatory import PATIENCE_S, Mandatory
from service.engine.optional import Optional
from service.engine.predictions import Predictions
from service.engine.step import Key, Settled, Step
from service.engine.ticket import StoppedBy, Ticket
from service.engine.waiting import Places
from service.engine.width import Width

REHEARSAL_INTERVAL_S = 1.0
"""Rehearsals of idle time are at least this far apart."""


class Scheduler:
    """The policy as a state machine: admit, next_step, complete or fail, cancel; `take_settled` after each."""

    def __init__(self, costs: CostModel, max_batch_rows: int) -> None:
        self._max_batch_rows = max_batch_rows
        self._predictions = Predictions(costs)
        self._arrivals = Arrivals()
        self._grain = Grain(costs, self._arrivals)
        self._width = Width(costs, self._arrivals)
        self._arrears = Arrears(max_batch_rows)
        self._places = Places()
        self._mandatory = Mandatory(self._predictions, self._places, max_batch_rows, self._turn_away)
        self._optional = Optional(self._predictions, self._arrivals, self._places, max_batch_rows, self._turn_away)
        self._patience: list[tuple[float, int, Ticket]] = []
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
        if math.isinf(slack_s):
            heapq.heappush(self._patience, (ticket.deadline.arrived + PATIENCE_S, self._places.new(), ticket))
        elif ticket.published is None:
            # Who goes on from an answer says nothing of what those to come have at stake.
            self._arrivals.observe(now, slack_s, ticket.expected, self._predictions.each_s(ticket, now))
        self._enqueue_or_settle(ticket, now)

    def next_step(self, now: float) -> Step | None:
        """What to run now; None while there is nothing to do. The step must be completed or failed."""
        self._lose_patience(now)
        while (urgent := self._mandatory.most_urgent()) is not None:
            batch = self._mandatory.batch(urgent, now)
            if batch:
                return _step(urgent, batch)
        if self._arrears and (behind := self._arrears.take(first=True)):
            return _catch_up(behind)
        valuable = self._optional.most_valuable(now)
        if valuable is not None:
            key, rate_elsewhere = valuable
            return self._refine(key, self._optional.batch(key, rate_elsewhere, now), now)
        if self._arrears:
            return _catch_up(self._arrears.take(first=False))
        return self._next_rehearsal(now)

    def complete(self, tickets: Iterable[Ticket], now: float) -> None:
        """Tickets of a step have published one more prefix, or none if it was given up: they wait again, or settle."""
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
        for ticket in list(self._places.taken):
            self._settle(ticket, reason)
        self._arrears.clear()
        # Entries of those who had left before stay in the heaps until they come up; now nothing will.
        for queue in (self._patience, self._mandatory, self._optional):
            queue.clear()

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

    def _refine(self, key: Key, batch: Sequence[Ticket], now: float) -> Step:
        """An optional step, of as many members as are best together."""
        alone = not self.waiting
        if (width := self._grain.of(key, batch, now, alone=alone)) > 1:
            return _step(key, batch, width, fused=True)
        if (width := self._width.of(key, batch, now, alone=alone)) > 1:
            return _step(key, batch, width)
        # The lanes of a wave, and what a stream remembers, are not given up half-way.
        return _step(key, batch, halt=Halt() if batch[0].part is None else None)

    def _enqueue_or_settle(self, ticket: Ticket, now: float) -> None:
        if ticket.exit is not None and not ticket.rows:
            self._settle(ticket, ticket.exit.reason)
        elif ticket.depth >= ticket.member_limit:
            self._settle(ticket, ticket.limited_by)
        elif ticket.depth >= ticket.member_minimum and not _impatient(ticket, now):
            self._optional.add(ticket, now)
        elif self._predictions.worth_trying(ticket, ticket.depth, now):
            self._mandatory.add(ticket)
        else:
            self._turn_away(ticket)

    def _settle(self, ticket: Ticket, reason: StoppedBy) -> None:
        self._places.taken.pop(ticket, None)
        self._settled.append(Settled(ticket, reason))
        if reason is StoppedBy.DEADLINE:
            self._arrears.add(ticket)

    def _turn_away(self, ticket: Ticket) -> None:
        self._settle(ticket, StoppedBy.DEADLINE)
        self._doubted = (ticket.model, ticket.depth, ticket.rows)

    def _lose_patience(self, now: float) -> None:
        """Requests without a deadline that have waited long enough become mandatory."""
        while self._patience and self._patience[0][0] <= now:
            ticket = heapq.heappop(self._patience)[2]
            # One that is in a step now is found impatient when it comes back.
            if ticket in self._places:
                self._mandatory.add(ticket)

    def _next_rehearsal(self, now: float) -> Step | None:
        if self._doubted is None or now < self._rehearsed_at + REHEARSAL_INTERVAL_S:
            return None
        (model, member, rows), self._doubted = self._doubted, None
        self._rehearsed_at = now
        return Step(model, member, (), min(rows, self._max_batch_rows))


def _impatient(ticket: Ticket, now: float) -> bool:
    """Whether a request without a deadline has waited so long that its members have become mandatory."""
    return math.isinf(ticket.deadline.answer_by) and ticket.deadline.arrived + PATIENCE_S <= now


def _step(
    key: Key, tickets: Sequence[Ticket], width: int = 1, *, fused: bool = False, halt: Halt | None = None
) -> Step:
    return Step(*key, tuple(tickets), sum(ticket.rows for ticket in tickets), width, fused, halt=halt)


def _catch_up(tickets: Sequence[Ticket]) -> Step:
    """The next run of a member that is behind."""
    return _step((tickets[0].model, tickets[0].depth), tickets)
