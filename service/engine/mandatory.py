"""Mandatory steps: those without which there is no answer. Standard library only.

Earliest deadline first is the best order while everybody can be served in time. Where that cannot be, it is the
worst: whoever comes up has just enough time left for a batch of one, and so the device runs batches of one although
fuller ones would serve more in the same time. So, if somebody will wait in vain anyway, those who would keep a batch
small are passed over where a fuller one answers more requests a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from service.engine.predictions import Predictions
from service.engine.step import Key
from service.engine.ticket import Ticket
from service.engine.waiting import Places, Waiting

PATIENCE_S = 1.0
"""A waiting request is as urgent as one whose deadline is this long after its arrival, or its own if earlier."""

PASSED = 8
"""Requests that may be passed over for one batch."""


class Mandatory:
    """Queues by model and member.

    Args:
        predictions: of durations.
        places: where tickets wait.
        max_batch_rows: of one step.
        turn_away: called with each ticket that is found to have too little time.
    """

    def __init__(
        self, predictions: Predictions, places: Places, max_batch_rows: int, turn_away: Callable[[Ticket], None]
    ) -> None:
        self._predictions = predictions
        self._places = places
        self._max_batch_rows = max_batch_rows
        self._turn_away = turn_away
        self._queues: dict[Key, Waiting[tuple[float, float]]] = {}

    def add(self, ticket: Ticket) -> None:
        """Enqueue a ticket for its next member."""
        key = ticket.model, ticket.depth
        if key not in self._queues:
            self._queues[key] = Waiting(self._places)
        urgency = min(ticket.deadline.answer_by, ticket.deadline.arrived + PATIENCE_S)
        self._queues[key].push((-ticket.priority, urgency), ticket)

    def clear(self) -> None:
        """Forget everybody."""
        self._queues.clear()

    def most_urgent(self) -> Key | None:
        """The queue to serve."""
        ranks = {}
        for key, queue in list(self._queues.items()):
            head = queue.head()
            if head is None:
                del self._queues[key]
            else:
                ranks[key] = head[0]
        return min(ranks, key=ranks.__getitem__) if ranks else None

    def batch(self, key: Key, now: float) -> Sequence[Ticket]:
        """Take the tickets of the next step off a queue; none if its head had too little time, and had to go."""
        queue = self._queues[key]
        head = queue.pop()
        if not self._predictions.worth_trying(head, key[1], now):
            # Another queue may be the most urgent now.
            self._turn_away(head)
            return ()
        *unsure, first = self._surest(key, queue, head, now)
        others_start = self._others_must_start(key, now)
        batch = self._in_order(key, queue, first, others_start, now)
        chosen: Sequence[Ticket] = batch
        if queue.head() is not None and _rows(batch) < self._max_batch_rows:
            chosen = self._fuller(key, queue, batch, others_start, now)
        for ticket in unsure:
            self.add(ticket)
        return chosen

    def _surest(self, key: Key, queue: Waiting[tuple[float, float]], head: Ticket, now: float) -> list[Ticket]:
        """The head, and if it is not sure to be in time, those that follow up to the first that is."""
        found = [head]
        while not self._predictions.in_time(found[-1], key[1], now) and len(found) <= PASSED:
            following = self._head(key, queue, now)
            if following is None or following.priority < head.priority:
                break
            found.append(queue.pop())
        return found

    def _in_order(
        self, key: Key, queue: Waiting[tuple[float, float]], first: Ticket, others_start: float, now: float
    ) -> list[Ticket]:
        """The first and as many of those that follow as are in one batch without making anybody late."""
        batch, rows, dues = [first], first.rows, [min(others_start, first.deadline.answer_by)]
        most = self._predictions.most_rows(key, dues[0] - now, self._max_batch_rows, now)
        while rows < most and (ticket := self._head(key, queue, now)) is not None and rows + ticket.rows <= most:
            batch.append(queue.pop())
            rows += ticket.rows
            dues.append(min(dues[-1], ticket.deadline.answer_by))
        while len(batch) > 1 and dues[-1] - now - self._predictions.batch_s(key, rows, now) < 0:
            rows -= batch[-1].rows
            dues.pop()
            self.add(batch.pop())
        return batch

    def _fuller(
        self,
        key: Key,
        queue: Waiting[tuple[float, float]],
        in_order: list[Ticket],
        others_start: float,
        now: float,
    ) -> Sequence[Ticket]:
        """If somebody is late anyway, a batch that passes over some and answers more a second. The others go back."""
        chosen: Sequence[Ticket] = in_order
        pace = len(in_order) / self._predictions.batch_s(key, _rows(in_order), now)
        wanted = self._predictions.full_rows(key, self._max_batch_rows, now)
        waiting, rows = list(in_order), _rows(in_order)
        while rows < wanted + PASSED and (ticket := self._head(key, queue, now)) is not None:
            if ticket.priority < in_order[0].priority:
                break
            waiting.append(queue.pop())
            rows += ticket.rows
        pressed = self._somebody_late(key, waiting, now)
        while pressed and wanted > 1:
            seconds = self._predictions.batch_s(key, wanted, now)
            batch = _first(waiting, wanted, now + seconds)
            # Where fewer rows than wanted take longer, they are not in time for that.
            fits = bool(batch) and self._predictions.batch_s(key, _rows(batch), now) <= seconds
            if fits and now + seconds <= others_start and len(batch) / seconds > pace:
                chosen, pace = batch, len(batch) / seconds
            wanted //= 2
        for ticket in waiting:
            if ticket not in chosen:
                self.add(ticket)
        return chosen

    def _somebody_late(self, key: Key, tickets: Iterable[Ticket], now: float) -> bool:
        """Whether one of these, most urgent first, is late even if those before it share one batch with it."""
        rows = 0
        for ticket in tickets:
            rows = min(rows + ticket.rows, self._max_batch_rows)
            if ticket.deadline.slack(now, self._predictions.batch_s(key, rows, now)) < 0:
                return True
        return False

    def _head(self, key: Key, queue: Waiting[tuple[float, float]], now: float) -> Ticket | None:
        """The most urgent one that is worth trying."""
        while (head := queue.head()) is not None:
            if self._predictions.worth_trying(head[1], key[1], now):
                return head[1]
            self._turn_away(queue.pop())
        return None

    def _others_must_start(self, key: Key, now: float) -> float:
        """When the most urgent requests of the other queues must start to be in time."""
        latest = math.inf
        for other, queue in self._queues.items():
            # One that is not sure to be had in time must not keep batches small.
            head = self._head(other, queue, now) if other != key else None
            if head is not None and self._predictions.in_time(head, other[1], now):
                latest = min(latest, head.deadline.answer_by - self._predictions.each_s(head, now)[other[1]])
        return latest


def _rows(tickets: Iterable[Ticket]) -> int:
    return sum(ticket.rows for ticket in tickets)


def _first(tickets: Sequence[Ticket], rows: int, end: float) -> list[Ticket]:
    """The first tickets due after `end`, of so many rows together at most."""
    batch: list[Ticket] = []
    for ticket in tickets:
        if ticket.rows <= rows and ticket.deadline.slack(end) >= 0:
            batch.append(ticket)
            rows -= ticket.rows
    return batch
