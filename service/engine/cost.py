"""How long a member, or several side by side, will take at a batch size: measured at warm-up, corrected online.

For each member the model holds a *curve* (median duration at each rehearsed batch size, linear in between) and
a window of recent *ratios* measured / curve. The prediction is the curve times a quantile of the ratios, so one
step at any batch size teaches all batch sizes: when a noisy neighbour slows the device, a dozen steps are
enough to follow, and as many to forget. Ratios grow old: a prediction that scared everybody away must not
live on because nobody is left to disprove it.

Standard library only; the caller brings the time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from service.engine.recent import RecentQuantile, at_quantile
from service.engine.waves import makespan

WINDOW_STEPS = 64
"""Steps that a prediction looks back on: enough for a 95 % quantile, few enough to follow drift."""

MEMORY_S = 10.0
"""Age at which a measured ratio no longer counts."""

FEW_STEPS = 20
"""Among fewer, a single slow one is doubted: of a few steps the 95 % quantile is the slowest, and after one hiccup in a
quiet hour everybody would be turned away until it is forgotten."""


class MemberCost:
    """Predicted duration of one member.

    Args:
        durations_s: rehearsed durations by batch size.
        safety: quantile of the ratios that predictions use.
        rehearsed: whether the durations were measured, and do not only follow from others.
    """

    def __init__(self, durations_s: Mapping[int, Sequence[float]], safety: float, *, rehearsed: bool = True) -> None:
        self.rows = tuple(sorted(durations_s))
        """Rehearsed batch sizes, ascending."""
        medians: list[float] = []
        for size in self.rows:
            # A larger batch never costs less: where noise says so, the curve stays level.
            medians.append(max(at_quantile(sorted(durations_s[size]), 0.5), *medians[-1:], 1e-9))
        self.medians_s = tuple(medians)
        """Median duration at each of them."""
        ratios = sorted(
            duration / median for size, median in zip(self.rows, medians, strict=True) for duration in durations_s[size]
        )
        self._rehearsed_ratio = at_quantile(ratios, safety)
        few = FEW_STEPS if rehearsed else 0
        self._ratios = RecentQuantile(safety, WINDOW_STEPS, MEMORY_S, self._rehearsed_ratio, few)
        self._curve: dict[int, float] = {}
        self._predicted: dict[int, float] = {}
        self.ratio = self._rehearsed_ratio
        """Measured / curve at the safety quantile, as of the latest step."""
        self.usual = 1.0
        """The same at the median; may be read from any thread."""

    def curve(self, rows: int) -> float:
        """Typical seconds for a batch of `rows`, without today's ratio."""
        seconds = self._curve.get(rows)
        if seconds is None:
            seconds = self._curve[rows] = self._interpolate(rows)
        return seconds

    def _interpolate(self, rows: int) -> float:
        if rows <= self.rows[0]:
            return self.medians_s[0]
        if rows > self.rows[-1]:
            return self.medians_s[-1] * rows / self.rows[-1]
        right = bisect_left(self.rows, rows)
        low, high = self.rows[right - 1], self.rows[right]
        share = (rows - low) / (high - low)
        return self.medians_s[right - 1] * (1 - share) + self.medians_s[right] * share

    def observe(self, rows: int, duration_s: float, now: float) -> bool:
        """Learn from a step of `rows` rows that ended at `now`; whether predictions have changed."""
        self._ratios.add(duration_s / self.curve(rows), now)
        return self._refresh(now)

    def predict(self, rows: int, now: float) -> float:
        """Seconds that a step of `rows` rows will stay within, at the safety quantile."""
        if now > self._ratios.holds_until:
            self._refresh(now)
        # The scheduler asks far more often than the ratio moves.
        seconds = self._predicted.get(rows)
        if seconds is None:
            seconds = self._predicted[rows] = self.curve(rows) * self.ratio
        return seconds

    @property
    def holds_until(self) -> float:
        """Until when predictions stay as they are, unless something is learned."""
        return self._ratios.holds_until

    def _refresh(self, now: float) -> bool:
        ratio = self._ratios.get(now)
        if ratio is None:
            ratio = self._rehearsed_ratio
        # Not above the quantile, which may doubt the few steps that there are.
        self.usual = min(self._ratios.median() or 1.0, ratio)
        if ratio == self.ratio:
            return False
        self.ratio = ratio
        self._predicted.clear()
        return True


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
        members: Sequence[MemberCost],
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


class CostModel:
    """Predicted durations of all members of all served models."""

    def __init__(self) -> None:
        self._members: dict[str, list[MemberCost]] = {}
        self._waves: dict[str, WaveCosts] = {}
        self._each: dict[tuple[str, int], tuple[list[float], float]] = {}

    def add(self, model: str, members: list[MemberCost], waves: WaveCosts | None = None) -> None:
        """Start to predict for a model's members, and for its waves if any are to be run."""
        self._members[model] = members
        if waves is None:
            self._waves.pop(model, None)
        else:
            self._waves[model] = waves
        self._each.clear()

    def remove(self, model: str) -> None:
        """Forget a model that has been unloaded."""
        self._members.pop(model, None)
        self._waves.pop(model, None)
        self._each.clear()

    def waves(self, model: str) -> WaveCosts | None:
        """What waves of a model take; None if its members run one after another."""
        return self._waves.get(model)

    def predict(self, model: str, member: int, rows: int, now: float) -> float:
        """Seconds for member `member` on `rows` rows."""
        return self._members[model][member].predict(rows, now)

    def predict_each(self, model: str, rows: int, now: float) -> list[float]:
        """Seconds for each member of a model on `rows` rows; not to be changed by the caller."""
        known = self._each.get((model, rows))
        if known is not None and now <= known[1]:
            return known[0]
        members = self._members[model]
        each = [member.predict(rows, now) for member in members]
        self._each[model, rows] = each, min(member.holds_until for member in members)
        return each

    def typical(self, model: str, member: int, rows: int) -> float:
        """Median seconds at warm-up; unlike `predict`, it may be asked from any thread."""
        return self._members[model][member].curve(rows)

    def usually(self, model: str, member: int, rows: int) -> float:
        """Seconds that half of the latest steps took no longer than, for their size; from any thread."""
        cost = self._members[model][member]
        return cost.curve(rows) * cost.usual

    def observe(self, model: str, member: int, rows: int, duration_s: float, now: float) -> None:
        """Learn from a finished step."""
        if self._members[model][member].observe(rows, duration_s, now):
            self._each.clear()


def batch_sizes(largest: int) -> list[int]:
    """Batch sizes to rehearse: powers of two up to `largest`, and `largest` itself."""
    sizes = [2**power for power in range(largest.bit_length()) if 2**power <= largest]
    return sizes if sizes[-1] == largest else [*sizes, largest]
