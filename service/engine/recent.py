"""A quantile of what was measured lately: follows drift within a window, forgets with age. Standard library only."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence


class RecentQuantile:
    """Quantile over the latest `window` values that are no older than `memory_s`.

    Args:
        share: which quantile, in (0, 1].
        window: values to look back on.
        memory_s: age at which a value no longer counts.
        prior: what counts in the place of a single larger value among few; two in succession are believed.
        few: with so many values none is doubted.
    """

    def __init__(self, share: float, window: int, memory_s: float, prior: float = 0.0, few: int = 0) -> None:
        self._share = share
        self._prior = prior
        self._few = few
        self._larger = False
        self._in_succession = False
        self._window = window
        self._memory_s = memory_s
        self._timed: deque[tuple[float, float]] = deque()
        self._ordered: list[float] = []
        self._quantile: float | None = None
        self.holds_until = -math.inf
        """Until when `get` gives the same, unless a value is added."""

    def __len__(self) -> int:
        """How many values it looks back on."""
        return len(self._timed)

    def add(self, value: float, now: float) -> None:
        """Take in a value measured at `now`."""
        if len(self._timed) == self._window:
            self._forget_oldest()
        # Known for longer than the values: what is measured rarely, but always so, is no outlier.
        self._in_succession = self._larger and value > self._prior
        self._larger = value > self._prior
        self._timed.append((now, value))
        insort(self._ordered, value)
        self.holds_until = -math.inf

    def get(self, now: float) -> float | None:
        """The quantile; None when nothing recent is known."""
        # The scheduler asks far more often than values come or go.
        if now > self.holds_until:
            while self._timed and self._timed[0][0] < now - self._memory_s:
                self._forget_oldest()
            self._quantile = at_quantile(self._believed(), self._share) if self._ordered else None
            self.holds_until = self._timed[0][0] + self._memory_s if self._timed else math.inf
        return self._quantile

    def median(self) -> float | None:
        """The middle of the values that were there at the last `get`; None if there were none."""
        return at_quantile(self._ordered, 0.5) if self._ordered else None

    def _believed(self) -> Sequence[float]:
        if len(self._ordered) >= self._few or self._in_succession:
            return self._ordered
        *others, largest = self._ordered
        single = largest > self._prior and (not others or others[-1] <= self._prior)
        return [*others, self._prior] if single else self._ordered

    def _forget_oldest(self) -> None:
        _, value = self._timed.popleft()
        del self._ordered[bisect_left(self._ordered, value)]


def at_quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest of ascending values that is at least as large as `share` of all (inverse distribution)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
