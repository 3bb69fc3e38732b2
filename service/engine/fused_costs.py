"""How long the groups of one model take in one run. Standard library only."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from service.engine.member_cost import MemberCost


class FusedCosts:
    """Predicted durations of groups of members, each run as a whole.

    Args:
        durations_s: of each group, rehearsed durations by batch size.
        used: for each of them, the rehearsed batch sizes at which it is run.
        safety: quantile of durations that predictions use.
    """

    def __init__(
        self,
        durations_s: Mapping[range, Mapping[int, Sequence[float]]],
        used: Mapping[range, Sequence[int]],
        safety: float,
    ) -> None:
        self._costs = {group.start: MemberCost(durations, safety) for group, durations in durations_s.items()}
        self._used = {group.start: (len(group), frozenset(used[group])) for group in durations_s}

    def width(self, member: int, rows: int) -> int:
        """How many members run in one go from `member` on, with `rows` rows; 1: it alone."""
        if member not in self._used:
            return 1
        width, used = self._used[member]
        sizes = self._costs[member].rows
        # More rows than were ever measured would take longer than is known to be short enough.
        return width if rows <= sizes[-1] and sizes[bisect_left(sizes, rows)] in used else 1

    def typical(self, member: int, width: int, rows: int) -> float:
        """Median seconds at warm-up for the group of `width` members from `member` on."""
        return self._costs[member].curve(rows)

    def predict(self, member: int, width: int, rows: int, now: float) -> float:
        """Seconds for the group of `width` members from `member` on."""
        return self._costs[member].predict(rows, now)

    def observe(self, member: int, width: int, rows: int, duration_s: float, now: float) -> None:
        """Learn from a finished step."""
        self._costs[member].observe(rows, duration_s, now)
