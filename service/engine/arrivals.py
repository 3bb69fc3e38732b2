"""What a step would cost requests that have not come yet: learned from those that have. Standard library only.

A step is ended early only at the loss of all it has done (`preemption`). Whoever arrives while it runs waits for its
end as a rule, and that may leave no time for the first member, so that there is no answer, or none for a large last
one. How often that happens follows from the rate of arrivals and their budgets.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from itertools import accumulate

WINDOW_ARRIVALS = 256
"""Arrivals to look back on."""

REFRESH_ARRIVALS = 16
"""The sums are made again after so many, when somebody asks."""

MEMORY_S = 10.0
"""Arrivals older than this say nothing about the present."""

CHANCE = 0.5
"""Of a request whose last member would just have fitted, how likely the device would have been free for it."""


class Arrivals:
    """Rate and budgets of recent requests with a deadline, and what the time is worth to them."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, tuple[tuple[float, float], ...]]] = deque(maxlen=WINDOW_ARRIVALS)
        self._unseen = 0
        self._least_spare_s = math.inf
        """Nobody who was observed has less, but for those who are forgotten."""
        self._spare: list[float] = []
        self._worth: list[float] = [0.0]
        self._worth_times_spare: list[float] = [0.0]
        self._span_s = 1.0

    def observe(self, now: float, slack_s: float, expected: Sequence[float], seconds: Sequence[float]) -> None:
        """A request came.

        Args:
            now: the present.
            slack_s: time until its answer is due.
            expected: right answers after 0, 1, ... members.
            seconds: predicted duration of each member on its rows.
        """
        spare_s = slack_s - seconds[0]
        if spare_s < 0:
            return
        stakes = [(spare_s, expected[1])]
        if spare_s >= seconds[-1] and len(seconds) > 1:
            stakes.append((spare_s - seconds[-1], CHANCE * (expected[-1] - expected[1])))
        self._recent.append((now, tuple(stakes)))
        self._unseen += 1
        # What is at stake for the last member is lost sooner than the first answer.
        self._least_spare_s = min(self._least_spare_s, stakes[-1][0])

    def loss(self, duration_s: float) -> float:
        """Right answers that requests to come are expected to lose to a step of that duration.

        Who can be kept waiting for `spare` seconds loses what is at stake by arriving in the first
        `duration - spare` seconds of the step.
        """
        if duration_s <= self._least_spare_s:
            # Under easy deadlines that is every step: nothing is added up for them.
            return 0.0
        if self._unseen >= REFRESH_ARRIVALS:
            self._refresh()
        count = bisect_left(self._spare, duration_s)
        return (duration_s * self._worth[count] - self._worth_times_spare[count]) / self._span_s if count else 0.0

    def _refresh(self) -> None:
        self._unseen = 0
        newest = self._recent[-1][0]
        while self._recent[0][0] < newest - MEMORY_S:
            self._recent.popleft()
        stakes = sorted(stake for _, both in self._recent for stake in both)
        self._spare = [spare_s for spare_s, _ in stakes]
        self._least_spare_s = self._spare[0]
        self._worth = [0.0, *accumulate(worth for _, worth in stakes)]
        self._worth_times_spare = [0.0, *accumulate(spare_s * worth for spare_s, worth in stakes)]
        self._span_s = max(newest - self._recent[0][0], 1e-3)
