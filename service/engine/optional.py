"""Optional steps: those that may make an answer better. Standard library only.

A step is rated by expected right answers per second, over the best way that begins with it (`plan`), less what it is
expected to cost requests that come while it runs (`arrivals`). Of two that are worth the same, the one that cannot
wait is first: what can be had later too counts less now, by a factor e for each DISCOUNT_S that it may still wait.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from service.engine.arrivals import Arrivals
from service.engine.mandatory import PATIENCE_S
from service.engine.plan import best_move
from service.engine.predictions import Predictions
from service.engine.step import Key
from service.engine.ticket import Ticket
from service.engine.waiting import Places, Waiting

DISCOUNT_S = 0.02
"""Of the order of the tightest deadlines; a quarter and five times as much did little worse in simulation."""

MISFITS = 8
"""Requests that may be passed over while a batch grows, because their deadlines do not suit it."""

ROUNDING_S = 1e-6
"""Differences of instants below this are rounding."""


class Optional:
    """Queues by model and member.

    Args:
        predictions: of durations.
        arrivals: what steps cost requests to come.
        places: where tickets wait.
        max_batch_rows: of one step.
        turn_away: called with each ticket that is found to have no time for any step.
    """

    def __init__(
        self,
        predictions: Predictions,
        arrivals: Arrivals,
        places: Places,
        max_batch_rows: int,
        turn_away: Callable[[Ticket], None],
    ) -> None:
        self._predictions = predictions
        self._arrivals = arrivals
        self._places = places
        self._max_batch_rows = max_batch_rows
        self._turn_away = turn_away
        self._queues: dict[Key, Waiting[float]] = {}
        self._lone: tuple[Key, Ticket, int] | None = None
        """Who was added while nobody waited, and at which place: in no queue until somebody else comes, because
        most likely its next step is the next to run."""

    def add(self, ticket: Ticket, now: float) -> None:
        """Take in a ticket for the first step of its best way."""
        self._join(now)
        if self._places:
            self._enqueue(ticket, now)
            return
        key = self._straight_on(ticket, now) or self._plan(ticket, now)
        if key is None:
            self._turn_away(ticket)
        else:
            place = self._places.taken[ticket] = self._places.new()
            self._lone = key, ticket, place

    def clear(self) -> None:
        """Forget everybody."""
        self._queues.clear()
        self._lone = None

    def most_valuable(self, now: float) -> tuple[Key, float] | None:
        """The queue to serve, and the rate of the next best one; None if nobody waits for an optional step.

        What a step is expected to cost arrivals still to come ranks it, but never leaves the device idle: an answer
        that stayed shallow for somebody who then did not come would be nobody's gain.
        """
        if self._lone is not None:
            alone_key, alone, place = self._lone
            if self._places.taken == {alone: place} and now <= alone.way_until:
                return alone_key, 0.0
            self._join(now)
        newest, elapsed = -1, now / DISCOUNT_S
        # Those planned anew go to queues that may have been looked at before.
        while newest != self._places.last:
            newest = self._places.last
            best_key, best, second = None, -math.inf, -math.inf
            best_net = rate_elsewhere = 0.0
            to_beat = -math.inf
            for key, queue in list(self._queues.items()):
                rank = queue.best_rank
                if rank is not None and elapsed - rank < to_beat:
                    continue
                ticket = self._head(key, now)
                if ticket is None:
                    del self._queues[key]
                    continue
                duration_s = self._predictions.each_run_s(ticket, now)[key[1]]
                net = ticket.way_rate - self._arrivals.loss(duration_s) / duration_s
                score = net * math.exp(min(0.0, now - _urgent_at(ticket)) / DISCOUNT_S) if net > 0 else net
                if best_key is None or score > best:
                    best_key, best, best_net, second, rate_elsewhere = key, score, net, best, best_net
                elif score > second:
                    second, rate_elsewhere = score, net
                to_beat = math.log(second) if second > 0 else -math.inf
        return None if best_key is None else (best_key, max(rate_elsewhere, 0.0))

    def batch(self, key: Key, rate_elsewhere: float, now: float) -> tuple[Ticket, ...]:
        """Take tickets off a queue, best first, while their rows are worth the time that they add."""
        if self._lone is not None:
            (_, alone, _), self._lone = self._lone, None
            del self._places.taken[alone]
            return (alone,)
        queue = self._queues[key]
        first = queue.pop()
        batch, rows, due = [first], first.rows, first.deadline.answer_by
        if rows >= self._max_batch_rows:
            return (first,)
        duration_s = self._predictions.batch_s(key, rows, now)
        loss = self._arrivals.loss(duration_s)
        misfits: list[Ticket] = []
        while len(misfits) < MISFITS and rows < self._max_batch_rows:
            ticket = self._head(key, now)
            if ticket is None:
                break
            grown, sooner = rows + ticket.rows, min(due, ticket.deadline.answer_by)
            if grown > self._max_batch_rows:
                break
            grown_s = self._predictions.batch_s(key, grown, now)
            if sooner - now - grown_s < 0:
                misfits.append(queue.pop())
                continue
            gain = ticket.way_rate * self._predictions.each_run_s(ticket, now)[key[1]]
            grown_loss = self._arrivals.loss(grown_s)
            if gain - (grown_loss - loss) < rate_elsewhere * (grown_s - duration_s):
                break
            batch.append(queue.pop())
            rows, due, duration_s, loss = grown, sooner, grown_s, grown_loss
        for ticket in misfits:
            self._push(key, ticket)
        return tuple(batch)

    def _join(self, now: float) -> None:
        """The lone ticket is so no more: it goes to a queue, unless it was cancelled or has become mandatory."""
        if self._lone is not None:
            (_, ticket, place), self._lone = self._lone, None
            if self._places.taken.get(ticket) == place:
                self._enqueue(ticket, now)

    def _enqueue(self, ticket: Ticket, now: float) -> None:
        """Put it where its best way begins, or turn it away if there is no time for any."""
        key = self._plan(ticket, now)
        if key is None:
            self._turn_away(ticket)
        else:
            self._push(key, ticket)

    def _push(self, key: Key, ticket: Ticket) -> None:
        if key not in self._queues:
            self._queues[key] = Waiting(self._places)
        # The logarithm of the discounted rate, but for a term that grows with time alike for all.
        rate = ticket.way_rate
        self._queues[key].push(_urgent_at(ticket) / DISCOUNT_S - math.log(rate) if rate > 0 else math.inf, ticket)

    def _head(self, key: Key, now: float) -> Ticket | None:
        """The best in a queue; those whose way no longer fits are planned anew."""
        queue = self._queues[key]
        while (head := queue.head()) is not None:
            ticket = head[1]
            if now <= ticket.way_until and self._predictions.in_time(ticket, key[1], now):
                return ticket
            self._enqueue(queue.pop(), now)
        return None

    def _straight_on(self, ticket: Ticket, now: float) -> Key | None:
        """The next member, if there is time for all that are left: whatever they are worth, none is better."""
        left_s = sum(self._predictions.each_s(ticket, now)[ticket.depth : ticket.member_limit])
        if left_s > ticket.deadline.slack(now):
            return None
        ticket.way_until = ticket.deadline.answer_by - left_s + ROUNDING_S
        return ticket.model, ticket.depth

    def _plan(self, ticket: Ticket, now: float) -> Key | None:
        """The first step of the ticket's best way; None if there is no time for any."""
        move = best_move(ticket, ticket.deadline.slack(now), self._predictions.each_s(ticket, now))
        if move is None:
            return None
        ticket.way_rate = move.rate
        ticket.way_until = ticket.deadline.answer_by - move.seconds + ROUNDING_S
        return ticket.model, move.member


def _urgent_at(ticket: Ticket) -> float:
    """When the ticket's way must begin: without a deadline, when it becomes mandatory."""
    return min(ticket.way_until, ticket.deadline.arrived + PATIENCE_S)
