"""How long a member will take at a batch size: measured at warm-up, corrected online.

For each member the model holds a *curve* (median duration at each rehearsed batch size, linear in between) and
a window of recent *ratios* measured / curve. The prediction is the curve times a quantile of the ratios, so one
step at any batch size teaches all batch sizes: when a noisy neighbour slows the device, a dozen steps are
enough to follow, and as many to forget. Ratios grow old: a prediction that scared everybody away must not
live on because nobody is left to disprove it.

Standard library only; the caller brings the time.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

WINDOW_STEPS = 64
"""Steps that a prediction looks back on: enough for a 95 % quantile, few enough to follow drift."""

MEMORY_S = 10.0
"""Age at which a measured ratio no longer counts."""


def at_quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest of ascending values that is at least as large as `share` of all (inverse distribution)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(slots=True)
class MemberCost:
    """Predicted duration of one member."""

    rows: tuple[int, ...]
    """Rehearsed batch sizes, ascending."""
    medians_s: tuple[float, ...]
    """Median duration at each of them."""
    rehearsed_ratio: float
    """Safety quantile of measured / median during the rehearsal: what holds until there is something newer."""
    safety: float
    """Quantile of the ratios that predictions use."""
    recent: deque[tuple[float, float]] = field(default_factory=deque)
    """(instant, ratio) of the latest steps."""
    _ordered: list[float] = field(default_factory=list)
    """The same ratios, ascending."""

    @classmethod
    def from_rehearsal(cls, durations_s: Mapping[int, list[float]], safety: float) -> MemberCost:
        """Build the curve from durations by batch size.

        A larger batch never costs less: where noise says so, the curve stays level.
        """
        rows = tuple(sorted(durations_s))
        medians: list[float] = []
        for size in rows:
            medians.append(max(at_quantile(sorted(durations_s[size]), 0.5), *medians[-1:], 1e-9))
        ratios = [
            duration / median for size, median in zip(rows, medians, strict=True) for duration in durations_s[size]
        ]
        return cls(rows, tuple(medians), at_quantile(sorted(ratios), safety), safety)

    def curve(self, rows: int) -> float:
        """Typical seconds for a batch of `rows`, without today's ratio."""
        if rows <= self.rows[0]:
            return self.medians_s[0]
        if rows > self.rows[-1]:
            return self.medians_s[-1] * rows / self.rows[-1]
        right = bisect_left(self.rows, rows)
        low, high = self.rows[right - 1], self.rows[right]
        share = (rows - low) / (high - low)
        return self.medians_s[right - 1] * (1 - share) + self.medians_s[right] * share

    def observe(self, rows: int, duration_s: float, now: float) -> None:
        """Learn from a step of `rows` rows that ended at `now`."""
        if len(self.recent) == WINDOW_STEPS:
            self._forget_oldest()
        ratio = duration_s / self.curve(rows)
        self.recent.append((now, ratio))
        insort(self._ordered, ratio)

    def predict(self, rows: int, now: float) -> float:
        """Seconds that a step of `rows` rows will stay within, at the safety quantile."""
        while self.recent and self.recent[0][0] < now - MEMORY_S:
            self._forget_oldest()
        ratio = at_quantile(self._ordered, self.safety) if self._ordered else self.rehearsed_ratio
        return self.curve(rows) * ratio

    def _forget_oldest(self) -> None:
        _, ratio = self.recent.popleft()
        del self._ordered[bisect_left(self._ordered, ratio)]


class CostModel:
    """Predicted durations of all members of all served models."""

    def __init__(self) -> None:
        self._members: dict[str, list[MemberCost]] = {}

    def add(self, model: str, members: list[MemberCost]) -> None:
        """Start to predict for a model's members."""
        self._members[model] = members

    def predict(self, model: str, member: int, rows: int, now: float) -> float:
        """Seconds for member `member` on `rows` rows."""
        return self._members[model][member].predict(rows, now)

    def typical(self, model: str, member: int, rows: int) -> float:
        """Median seconds at warm-up; unlike `predict`, it may be asked from any thread."""
        return self._members[model][member].curve(rows)

    def observe(self, model: str, member: int, rows: int, duration_s: float, now: float) -> None:
        """Learn from a finished step."""
        self._members[model][member].observe(rows, duration_s, now)


def batch_sizes(largest: int) -> list[int]:
    """Batch sizes to rehearse: powers of two up to `largest`, and `largest` itself."""
    sizes = [2**power for power in range(largest.bit_length()) if 2**power <= largest]
    return sizes if sizes[-1] == largest else [*sizes, largest]
