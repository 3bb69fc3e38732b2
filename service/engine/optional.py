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

    def add(self, ticket: Ticket, now: float) -> None:
        """Enqueue a ticket for the first step of its best way."""
        move = best_move(ticket, ticket.deadline.slack(now), self._predictions.each_s(ticket, now))
        if move is None:
            self._turn_away(ticket)
            return
        ticket.way_rate = move.rate
        ticket.way_until = ticket.deadline.answer_by - move.seconds + ROUNDING_S
        self._push((ticket.model, move.member), ticket)

    def clear(self) -> None:
        """Forget everybody."""
        self._queues.clear()

    def most_valuable(self, now: float) -> tuple[Key, float] | None:
        """The queue to serve, and the rate of the next best one; None if nobody waits for an optional step.

        What a step is expected to cost arrivals still to come ranks it, but never leaves the device idle: an answer
        that stayed shallow for somebody who then did not come would be nobody's gain.
        """
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
            self.add(queue.pop(), now)
        return None


def _urgent_at(ticket: Ticket) -> float:
    """When the ticket's way must begin: without a deadline, when it becomes mandatory."""
    return min(ticket.way_until, ticket.deadline.arrived + PATIENCE_S)
