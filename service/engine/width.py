"""How many members of a wave a step runs side by side. Standard library only.

Members without a path between them may share a step where they are sooner done so than in turn. Mandatory steps are
never widened, nor those of requests whose rows may leave early: for these, somebody looks at the answer in between.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.engine.arrivals import Arrivals
from service.engine.cost import CostModel
from service.engine.plan import MARGIN
from service.engine.step import Key
from service.engine.ticket import Ticket


class Width:
    """Chooses it, from what waves take and what requests to come would lose."""

    def __init__(self, costs: CostModel, arrivals: Arrivals) -> None:
        self._costs = costs
        self._arrivals = arrivals

    def of(self, key: Key, batch: Sequence[Ticket], now: float, *, alone: bool) -> int:
        """Members to run for a batch, `key`'s first.

        If it is `alone` and nobody else waits, the others would be next anyway: it is enough that all are sooner done
        than in turn and that this costs requests to come no more. Else they must be worth more per second than the
        first alone.

        What is better is judged by what all took at warm-up: of those that are not run now, nothing newer is known.
        """
        model, member = key
        waves = self._costs.waves(model)
        if waves is None:
            return 1
        rows = sum(ticket.rows for ticket in batch)
        widest = min([waves.widest(member, rows), *(members_wanted(ticket) for ticket in batch)])
        if widest < 2:
            return 1
        slack_s = min(ticket.deadline.slack(now) for ticket in batch)
        in_turn_s = self._costs.typical(model, member, rows)
        in_turn_loss = self._arrivals.loss(in_turn_s)
        best, best_rate = 1, (gain(batch, 1) - in_turn_loss) / in_turn_s
        for width in range(2, widest + 1):
            seconds = waves.typical(member, width, rows)
            next_s = self._costs.typical(model, member + width - 1, rows)
            in_turn_s += next_s
            in_turn_loss += self._arrivals.loss(next_s)
            late = waves.predict(member, width, rows, now) > slack_s
            if late or (seconds > in_turn_s and not waves.forced):
                continue
            loss = self._arrivals.loss(seconds)
            # Of those that are equally good, the widest: each step costs a little beside its members.
            if waves.forced or (alone and loss <= in_turn_loss + MARGIN):
                best = width
            elif not alone and (worth := gain(batch, width) - loss) >= best_rate * seconds - MARGIN:
                best, best_rate = width, worth / seconds
        return best


def members_wanted(ticket: Ticket) -> int:
    """Members that may run for a request without a look at its answer in between."""
    return 1 if ticket.exit is not None else ticket.member_limit - ticket.depth


def gain(batch: Sequence[Ticket], width: int) -> float:
    """Right answers expected of the next `width` members; times 2 for each level of priority."""
    return sum((one.expected[width] - one.expected[0]) * 2.0**one.priority for one in batch)
