"""Whether a running optional step is given up for a request that comes. Standard library only.

A step cannot be put aside and taken up again: what it has done is lost. So it is given up only if the newcomer, begun
at once, is expected to have more right answers by its deadline than if it waits for the step's end, by a multiple
(WORTH) of what the step's own requests lose. These lose the share of their gain that the step has already worked for,
or all of it where they have no time left to begin anew behind the newcomer.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.engine.cost import CostModel
from service.engine.halt import Halt
from service.engine.plan import MARGIN, reach
from service.engine.step import Running, Step
from service.engine.ticket import Ticket

HALT_S = 1e-3
"""From the call until a step has ended early: operators are not interrupted. `benchmarks/halt.py` measures it."""

WORTH = 2.0
"""The newcomer must gain so many times what is lost, because others may come before it has got there."""


class Preemption:
    """Decides, by what members usually take; asked by the thread that requests come in on."""

    def __init__(self, costs: CostModel) -> None:
        self._costs = costs

    def halt(self, running: Running, ticket: Ticket, now: float) -> Halt | None:
        """How to end what runs for the sake of a request that is about to be admitted; None: it is not to be ended.

        Streams and requests that go on from an earlier answer wait: what they still need is known between steps only.
        """
        step = running.step
        if step is None or step.halt is None or ticket.part is not None or ticket.resumes is not None:
            return None
        duration_s = self._costs.usually(step.model, step.member, step.rows)
        left_s = running.began + duration_s - now
        if left_s <= HALT_S:
            return None
        seconds = [self._costs.usually(ticket.model, member, ticket.rows) for member in range(ticket.members_total)]
        gained = reach(ticket, now + HALT_S, seconds) - reach(ticket, now + left_s, seconds)
        newcomer_s = sum(seconds[: ticket.member_minimum])
        worth_it = gained > MARGIN and gained > WORTH * _lost(step, duration_s, left_s, newcomer_s, now)
        return step.halt if worth_it else None


def _lost(step: Step, duration_s: float, left_s: float, newcomer_s: float, now: float) -> float:
    """Right answers that the step's own requests are expected to lose; times 2 for each level of priority."""
    done, lost = 1 - left_s / duration_s, 0.0
    for ticket in step.tickets:
        gain = _gain(ticket.expected, step.member + 1 - ticket.depth)
        anew = ticket.deadline.slack(now, HALT_S + newcomer_s + duration_s) >= 0
        lost += gain * (done if anew else 1.0) * 2.0**ticket.priority
    return lost


def _gain(expected: Sequence[float], members: int) -> float:
    """Of so many further members; none where the step has just ended and its requests have moved on."""
    return max(0.0, expected[members] - expected[0]) if 0 < members < len(expected) else 0.0
