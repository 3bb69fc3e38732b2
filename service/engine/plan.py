"""Where a request's next optional step leads. Standard library only.

The gains of an ensemble are not concave: a large last member may be worth more than all the small ones before it,
and time spent on these may be what it lacks. So the step is chosen by the whole way: towards the depth with the most
right answers that can be reached in time, by way of the members between if there is time for them too. What requests
are compared by is the rate of the step: the largest gain over time of any depth that can be reached through it (the
first edge of the concave envelope of the gain curve).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from service.engine.ticket import Ticket

MARGIN = 1e-9
"""Differences of accuracy below this are rounding."""


class Move(NamedTuple):
    """The first step of a way."""

    member: int
    """To be run next."""
    rate: float
    """Largest expected gain in right answers per second of any depth on the way; times 2 for each level of priority."""
    seconds: float
    """Predicted duration of the whole way."""


def best_move(ticket: Ticket, slack_s: float, seconds: Sequence[float]) -> Move | None:
    """The best way on for a request; None if not even one member ends in time.

    Args:
        ticket: a request with a prefix, below its limit.
        slack_s: time until its answer is due.
        seconds: predicted duration of each member on the ticket's rows.
    """
    depth, expected, limit = ticket.depth, ticket.expected, ticket.member_limit
    now, last = expected[0], ticket.members_total - 1
    spent_s, best_s, gain, member, rate = 0.0, 1.0, -1.0, -1, 0.0
    for target in range(depth, limit):
        spent_s += seconds[target]
        if spent_s > slack_s:
            break
        reached = expected[target + 1 - depth] - now
        if reached > rate * spent_s:
            rate = reached / spent_s
        if reached > gain + MARGIN:
            gain, best_s, member = reached, spent_s, depth
    if limit > last and seconds[last] <= slack_s and ticket.profile.jumps:
        reached = expected[-1] - now
        if reached > gain + MARGIN:
            best_s, member, rate = seconds[last], last, reached / seconds[last]
    if member < 0:
        return None
    return Move(member, rate * 2.0**ticket.priority if ticket.priority else rate, best_s)


def reach(ticket: Ticket, begin: float, seconds: Sequence[float]) -> float:
    """Right answers expected of a request that is begun at an instant and has the device to itself.

    Args:
        ticket: a request at any depth.
        begin: the instant.
        seconds: predicted duration of each member on the ticket's rows.

    Returns:
        The most of any depth that it may have and can reach in time; its present ones if there is none, and 0 as long
        as it has no answer. Times 2 for each level of priority.
    """
    depth, expected, needed = ticket.depth, ticket.expected, ticket.member_minimum
    best, spent_s, mandatory_s = expected[0] if depth >= needed else 0.0, 0.0, 0.0
    slack_s, last_slack_s = ticket.deadline.slack(begin), ticket.deadline.last - begin
    for target in range(depth, ticket.member_limit):
        spent_s += seconds[target]
        # A first answer is worth trying for longer than a better one.
        if spent_s > (last_slack_s if target < needed else slack_s):
            break
        if target < needed:
            mandatory_s = spent_s
        if target + 1 >= needed:
            best = max(best, expected[target + 1 - depth])
    last = ticket.members_total - 1
    if ticket.member_limit > last >= needed and ticket.profile.jumps and mandatory_s + seconds[last] <= slack_s:
        best = max(best, expected[-1])
    return best * 2.0**ticket.priority if ticket.priority else best
