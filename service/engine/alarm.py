"""Timers that know how late timers come here.

An event loop rounds its timers to milliseconds, and on a busy machine its thread is not woken at once: a timer that is
set to the instant an answer is due makes the answer late. How late timers come is measured with every one, and belongs
into what requests keep back of their deadlines: those that have something to answer with are ended that much earlier.
Used on the event loop's thread only.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from service.engine.deadline import Clock
from service.engine.recent import RecentQuantile

SHARE = 0.99
"""Of the timers, that are to come in time: coming early costs an answer at most a member, being late costs it whole."""
WINDOW_TIMERS = 1000
MEMORY_S = 300.0


class Alarms:
    """Sets timers, and learns from them how much earlier than due they must be aimed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._late = RecentQuantile(SHARE, WINDOW_TIMERS, MEMORY_S)

    def late_s(self) -> float:
        """How late timers come now."""
        return max(0.0, self._late.get(self._clock.now()) or 0.0)

    def rang(self, late_s: float) -> None:
        """A timer came so many seconds after the instant it was set to."""
        self._late.add(late_s, self._clock.now())

    def set(self, aim: float, due: float, may_be_early: Callable[[], bool], ring: Callable[[], None]) -> Alarm:
        """Call `ring` at `due` on the running loop; already at `aim`, if `may_be_early` says so then."""
        return Alarm(self, self._clock, aim, due, may_be_early, ring)


class Alarm:
    """One timer; never rings for a time that is infinite."""

    def __init__(
        self,
        alarms: Alarms,
        clock: Clock,
        aim: float,
        due: float,
        may_be_early: Callable[[], bool],
        ring: Callable[[], None],
    ) -> None:
        self._alarms, self._clock, self._due = alarms, clock, due
        self._may_be_early, self._ring = may_be_early, ring
        self._handle: asyncio.TimerHandle | None = None
        if math.isfinite(due):
            self._set(min(aim, due))

    def cancel(self) -> None:
        """Do not ring any more."""
        if self._handle is not None:
            self._handle.cancel()

    def _set(self, at: float) -> None:
        now = self._clock.now()
        # What is over already says nothing about timers.
        self._aimed = at if at > now else math.inf
        self._handle = asyncio.get_running_loop().call_later(max(0.0, at - now), self._fire)

    def _fire(self) -> None:
        now = self._clock.now()
        if math.isfinite(self._aimed):
            self._alarms.rang(now - self._aimed)
        if now < self._due and not self._may_be_early():
            self._set(self._due)
        else:
            self._ring()
