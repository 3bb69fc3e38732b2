"""What a step is predicted to take, asked the way a scheduler asks. Standard library only."""

from __future__ import annotations

from service.engine.cost import CostModel
from service.engine.step import Key
from service.engine.ticket import Ticket

DOUBLING_GAIN = 0.01
"""A batch is worth doubling as long as that makes a row faster by this share."""


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
        """Rows of a batch that makes good use of the device: with twice as many each would hardly be faster."""
        rows, pace_s = 1, self.batch_s(key, 1, now)
        while 2 * rows <= largest:
            faster_s = self.batch_s(key, 2 * rows, now) / (2 * rows)
            if faster_s > (1 - DOUBLING_GAIN) * pace_s:
                break
            rows, pace_s = 2 * rows, faster_s
        return rows
