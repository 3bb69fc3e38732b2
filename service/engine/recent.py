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
        prior: what counts in the place of values that are not known yet, where that makes the quantile smaller.
        weight: how many values there must be for it to count no more.
    """

    def __init__(self, share: float, window: int, memory_s: float, prior: float = 0.0, weight: int = 0) -> None:
        self._share = share
        self._prior = prior
        self._weight = weight
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
        self._timed.append((now, value))
        insort(self._ordered, value)
        self.holds_until = -math.inf

    def get(self, now: float) -> float | None:
        """The quantile; None when nothing recent is known."""
        # The scheduler asks far more often than values come or go.
        if now > self.holds_until:
            while self._timed and self._timed[0][0] < now - self._memory_s:
                self._forget_oldest()
            self._quantile = self._with_prior() if self._ordered else None
            self.holds_until = self._timed[0][0] + self._memory_s if self._timed else math.inf
        return self._quantile

    def median(self) -> float | None:
        """The middle of the values that were there at the last `get`; None if there were none."""
        return at_quantile(self._ordered, 0.5) if self._ordered else None

    def _with_prior(self) -> float:
        found = at_quantile(self._ordered, self._share)
        missing = self._weight - len(self._ordered)
        if missing <= 0 or found <= self._prior:
            return found
        return at_quantile(sorted([*self._ordered, *[self._prior] * missing]), self._share)

    def _forget_oldest(self) -> None:
        _, value = self._timed.popleft()
        del self._ordered[bisect_left(self._ordered, value)]


def at_quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest of ascending values that is at least as large as `share` of all (inverse distribution)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
