"""Which members are so small that they share a run where they would follow each other anyway. Standard library only.

A run of several members publishes nothing before it ends, so all of a group takes no longer than timers are late at
times. The mandatory member is in no group, and no group is run for requests whose rows may leave early: for these,
somebody looks at the answer in between.
"""

from __future__ import annotations

from collections.abc import Sequence

from bundle import Manifest
from service.engine.arrivals import Arrivals
from service.engine.cost import CostModel
from service.engine.plan import MARGIN
from service.engine.shared_cost import Cost
from service.engine.step import Key
from service.engine.ticket import Ticket
from service.engine.width import gain, members_wanted

GRAIN_S = 1e-3
"""No longer run than this is one of several members."""

STEP_S = 1e-4
"""CPU time of a step beside its run: decision, publication, learning, metrics."""

MAX_PARAMETERS = 4_000_000
"""Of a group: its weights are in memory once more."""


def groups(manifest: Manifest, costs: Sequence[Cost]) -> tuple[range, ...]:
    """Members to try in one run: those that follow each other and take up to GRAIN_S on one row, in turn.

    Args:
        manifest: of the model.
        costs: of each member.
    """
    found: list[range] = []
    start, seconds, parameters = 1, 0.0, 0
    for member in manifest.members[1:]:
        seconds += costs[member.index].curve(1)
        parameters += member.parameters
        if seconds > GRAIN_S or parameters > MAX_PARAMETERS:
            found.append(range(start, member.index))
            start, seconds, parameters = member.index, costs[member.index].curve(1), member.parameters
    found.append(range(start, len(manifest.members)))
    return tuple(group for group in found if len(group) > 1)


class Grain:
    """Chooses between a member and its group, from what both take and what requests to come would lose."""

    def __init__(self, costs: CostModel, arrivals: Arrivals) -> None:
        self._costs = costs
        self._arrivals = arrivals

    def of(self, key: Key, batch: Sequence[Ticket], now: float, *, alone: bool) -> int:
        """Members to run in one go for a batch, `key`'s first; 1: it alone.

        If it is `alone` and nobody else waits, the others would be next anyway: it is enough that all end in time and
        that this costs requests to come no more. Else they must be worth as much per second as the first alone, what a
        step takes beside its run counted in.
        """
        model, member = key
        fused = self._costs.fused(model)
        if fused is None:
            return 1
        rows = sum(ticket.rows for ticket in batch)
        width = fused.width(member, rows)
        if width < 2 or width > min(members_wanted(ticket) for ticket in batch):
            return 1
        slack_s = min(ticket.deadline.slack(now) for ticket in batch)
        if fused.predict(member, width, rows, now) > slack_s:
            return 1
        seconds, loss = fused.typical(member, width, rows), self._arrivals.loss
        each_s = [self._costs.typical(model, index, rows) for index in range(member, member + width)]
        if alone:
            better = loss(seconds) <= sum(map(loss, each_s)) + MARGIN
        else:
            rate = (gain(batch, 1) - loss(each_s[0])) / (each_s[0] + STEP_S)
            better = gain(batch, width) - loss(seconds) >= rate * (seconds + STEP_S) - MARGIN
        return width if better else 1
