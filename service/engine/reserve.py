"""The part of each deadline that is kept back for what follows the last member.

Between the moment a request is decided and the last byte of its answer lie the hop to the event loop, the loop's
other requests, encoding and the socket. On an idle machine that is a fraction of a millisecond; on a busy loop
it is many. So it is measured with every answer, and a high quantile of the latest is kept back: an answer that comes
early has lost a member at most, one that comes late is lost. Never less is kept back than the operator asks for, and
never so much that a stall of the machine would turn away everybody whose deadline is short, and teach nothing.

A request that would go without an answer is worth trying for longer: of its deadline is kept back what most answers
need. Used on the event loop's thread only.
"""

from __future__ import annotations

import math

from service.engine.recent import RecentQuantile

SHARE, SHARE_OF_TRIES = 0.999, 0.9
WINDOW_ANSWERS = 1000
WINDOW_LATELY = 100
"""Answers that the share of tries is taken of: fewer, because nine in ten are soon known."""
MEMORY_S = 300.0
"""Long enough for what one burst has taught to be known in the next."""
UNKNOWN_S = 0.005
"""Kept back until a window of answers has been seen: the first ones of a burst would pay for what they teach."""
SHARE_OF_BUDGET = 0.25
"""What is learned, or unknown, takes at most this much of a request's time."""


class Reserve:
    """Seconds to keep back, learned from answers."""

    def __init__(self, least_s: float) -> None:
        self._least_s = least_s
        self._tails = RecentQuantile(SHARE, WINDOW_ANSWERS, MEMORY_S)
        self._lately = RecentQuantile(SHARE_OF_TRIES, WINDOW_LATELY, MEMORY_S)

    def observe(self, tail_s: float, now: float) -> None:
        """An answer's last byte went out `tail_s` after the request was decided."""
        self._tails.add(tail_s, now)
        self._lately.add(tail_s, now)

    def seconds(self, now: float, budget_s: float = math.inf, late_s: float = 0.0) -> float:
        """What a request of `budget_s` that arrives now should keep back, where timers come `late_s` late."""
        tail_s = self._tails.get(now) or 0.0
        if len(self._tails) < WINDOW_ANSWERS:
            tail_s = max(tail_s, UNKNOWN_S)
        return max(self._least_s, min(tail_s + late_s, SHARE_OF_BUDGET * budget_s))

    def least_s(self, now: float) -> float:
        """What a request without an answer should keep back at least."""
        return max(self._least_s, self._lately.get(now) or 0.0)

    def budget_for(self, work_s: float, now: float, late_s: float) -> float:
        """The least time a request must be given, so that `work_s` of it are left for members."""
        # What takes its whole share of a budget takes as much of the smallest that has room for the work.
        return work_s + self.seconds(now, work_s / (1 - SHARE_OF_BUDGET), late_s)
