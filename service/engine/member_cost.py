"""How long one member will take at a batch size: measured at warm-up, corrected online.

There is a *curve* (median duration at each rehearsed batch size, linear in between) and a window of recent *ratios*
measured / curve. The prediction is the curve times a quantile of the ratios, so one step at any batch size teaches all
batch sizes: when a noisy neighbour slows the device, a dozen steps are enough to follow, and as many to forget. Ratios
grow old: a prediction that scared everybody away must not live on because nobody is left to disprove it.

Standard library only; the caller brings the time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from service.engine.recent import RecentQuantile, at_quantile

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
        self._looking_back = safety, WINDOW_STEPS, MEMORY_S, self._rehearsed_ratio, few
        self._ratios = RecentQuantile(*self._looking_back)
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

    def usually(self, rows: int) -> float:
        """Seconds that half of the latest steps took no longer than, for their size; from any thread."""
        return self.curve(rows) * self.usual

    def on_one_thread(self, rows: int) -> bool:
        """Whether a step of `rows` rows is to have one thread where it could have more; from any thread."""
        return False

    def doubtful(self, rows: int, now: float) -> bool:
        """Whether a step that is to have one thread should have more, to see whether that is still worse."""
        return False

    def observe(self, rows: int, duration_s: float, now: float, *, on_one_thread: bool = False) -> bool:
        """Learn from a step of `rows` rows that ended at `now`; whether predictions may have changed."""
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

    def holds_until(self, rows: int) -> float:
        """Until when predictions for `rows` rows stay as they are, unless something is learned."""
        return self._ratios.holds_until

    def forget(self) -> None:
        """What was learned says nothing any more."""
        self._ratios = RecentQuantile(*self._looking_back)

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
