"""Where a request's next optional step leads. Standard library only.

The gains of an ensemble are not concave: a large last member may be worth more than all the small ones before it,
and time spent on these may be what it lacks. So not the next step is rated but a whole way: of all depths that can
be reached in time, the one with the most right answers, the shortest if there are several. Its rate, gain over time, is
what requests are compared by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.engine.ticket import Ticket

MARGIN = 1e-9
"""Differences of accuracy below this are rounding."""


@dataclass(frozen=True, slots=True)
class Move:
    """The first step of a way."""

    member: int
    """To be run next."""
    rate: float
    """Right answers expected per second, over the whole way; times 2 for each level of priority."""
    seconds: float
    """Predicted duration of the whole way."""


def best_move(ticket: Ticket, slack_s: float, seconds: Sequence[float]) -> Move | None:
    """The best way on for a request; None if not even one member ends in time.

    Args:
        ticket: a request with a prefix, below its limit.
        slack_s: time until its answer is due.
        seconds: predicted duration of each member on the ticket's rows.
    """
    depth, expected = ticket.depth, ticket.expected
    spent_s, best_s, gain, member = 0.0, 1.0, -1.0, -1
    for target in range(depth, ticket.member_limit):
        spent_s += seconds[target]
        if spent_s > slack_s:
            break
        reached = expected[target + 1 - depth] - expected[0]
        if reached > gain + MARGIN:
            gain, best_s, member = reached, spent_s, depth
    last = ticket.members_total - 1
    if ticket.profile.jumps and ticket.member_limit > last and seconds[last] <= slack_s:
        reached = expected[-1] - expected[0]
        if reached > gain + MARGIN:
            gain, best_s, member = reached, seconds[last], last
    return None if member < 0 else Move(member, gain / best_s * 2.0**ticket.priority, best_s)
