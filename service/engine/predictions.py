"""What a step is predicted to take, asked the way a scheduler asks. Standard library only."""

from __future__ import annotations

from service.engine.cost import CostModel, batch_sizes
from service.engine.step import Key
from service.engine.ticket import Ticket

HARDLY = 0.015
"""Of the time of a row: what a fuller batch must save, or is not worth waiting for its end."""


class Predictions:
    """The cost model's answers about tickets and batches."""

    def __init__(self, costs: CostModel) -> None:
        self._costs = costs

    def batch_s(self, key: Key, rows: int, now: float) -> float:
        """Seconds for one run of a member on so many rows."""
        return self._costs.predict(*key, rows, now)

    def each_run_s(self, ticket: Ticket, now: float) -> list[float]:
        """Seconds for one run of each member on the ticket's rows alone."""
        return self._costs.predict_each(ticket.model, ticket.rows, now)

    def each_s(self, ticket: Ticket, now: float) -> list[float]:
        """Seconds until each member's answer on the ticket's rows alone: more than one run where it is behind."""
        each = self.each_run_s(ticket, now)
        return each if ticket.part is None else ticket.part.price(each)

    def in_time(self, ticket: Ticket, member: int, now: float) -> bool:
        """Whether the ticket alone is predicted to have that member's answer in time."""
        return ticket.deadline.slack(now, self.each_s(ticket, now)[member]) >= 0

    def worth_trying(self, ticket: Ticket, member: int, now: float) -> bool:
        """Whether the ticket alone is as likely as not to have that member's answer in time, or its first at last.

        Who is turned away has no answer for certain.
        """
        runs = 1 if ticket.part is None else ticket.part.runs(member)
        return ticket.deadline.chance(now, runs * self._costs.usually(ticket.model, member, ticket.rows))

    def full_rows(self, key: Key, largest: int, now: float) -> int:
        """Rows of a batch that makes good use of the device: with more each would hardly be faster."""
        sizes = batch_sizes(largest)
        each_s = [self.batch_s(key, rows, now) / rows for rows in sizes]
        enough_s = min(each_s) * (1 + HARDLY)
        return next(rows for rows, seconds in zip(sizes, each_s, strict=True) if seconds <= enough_s)

    def most_rows(self, key: Key, seconds: float, largest: int, now: float) -> int:
        """Rows of the largest batch that is predicted to take no longer; 0: none.

        One that is larger may be faster, where threads share its work that did not pay when they shared a smaller one.
        """
        sizes = batch_sizes(largest)
        fits = next((at for at in reversed(range(len(sizes))) if self.batch_s(key, sizes[at], now) <= seconds), None)
        if fits is None:
            return 0
        low, high = sizes[fits], sizes[fits + 1] if fits + 1 < len(sizes) else sizes[fits] + 1
        while high - low > 1:
            middle = (low + high) // 2
            if self.batch_s(key, middle, now) <= seconds:
                low = middle
            else:
                high = middle
        return low
