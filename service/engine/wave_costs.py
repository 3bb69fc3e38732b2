"""How long members of one model take side by side. Standard library only."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from service.engine.member_cost import MemberCost
from service.engine.shared_cost import Cost
from service.engine.waves import makespan


class WaveCosts:
    """Predicted durations of members of one model side by side: any that follow each other within a wave.

    Whole waves are measured. For a part of one, the measured durations are scaled by the time that the part and the
    whole would take on lanes that do not hinder each other; the part's own steps correct that.

    Args:
        members: of the model.
        durations_s: for each wave that may be run, rehearsed durations by batch size.
        used: for each of them, the rehearsed batch sizes at which it may be.
        lanes: members that run at once.
        safety: quantile of durations that predictions use.
        forced: whether waves are to be run even where that seems slower.
    """

    def __init__(
        self,
        members: Sequence[Cost],
        durations_s: Mapping[range, Mapping[int, Sequence[float]]],
        used: Mapping[range, Sequence[int]],
        lanes: int,
        safety: float,
        *,
        forced: bool = False,
    ) -> None:
        self._members = members
        self._durations_s = durations_s
        self._used = used
        self._lanes = lanes
        self._safety = safety
        self.forced = forced
        self._wave_of = {member: wave for wave in durations_s for member in wave}
        self._parts: dict[tuple[int, int], MemberCost] = {}

    def widest(self, member: int, rows: int) -> int:
        """How many members may run side by side from `member` on, with `rows` rows; 1: it alone."""
        wave = self._wave_of.get(member)
        if wave is None:
            return 1
        sizes = self._members[member].rows
        rehearsed = sizes[min(bisect_left(sizes, rows), len(sizes) - 1)]
        return wave.stop - member if rehearsed in self._used[wave] else 1

    def typical(self, member: int, width: int, rows: int) -> float:
        """Median seconds at warm-up for `width` members side by side, from `member` on."""
        return self._part(member, width).curve(rows)

    def predict(self, member: int, width: int, rows: int, now: float) -> float:
        """Seconds for `width` members side by side, from `member` on."""
        return self._part(member, width).predict(rows, now)

    def observe(self, member: int, width: int, rows: int, duration_s: float, now: float) -> None:
        """Learn from a finished step."""
        self._part(member, width).observe(rows, duration_s, now)

    def _part(self, member: int, width: int) -> MemberCost:
        part = self._parts.get((member, width))
        if part is None:
            wave = self._wave_of[member]
            run = range(member, member + width)
            part = self._parts[member, width] = MemberCost(
                {
                    rows: [duration * self._ideal(run, rows) / self._ideal(wave, rows) for duration in durations]
                    for rows, durations in self._durations_s[wave].items()
                },
                self._safety,
                rehearsed=run == wave,
            )
        return part

    def _ideal(self, run: range, rows: int) -> float:
        return makespan((self._members[member].curve(rows) for member in run), self._lanes)
