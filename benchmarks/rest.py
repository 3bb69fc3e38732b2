"""Waiting until servers have nothing left to do: what one of them still works off would be measured with the next.

A server that cancels nothing goes on with requests whose clients have hung up, for seconds after an overload.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

WINDOW_S = 0.1
SHARE = 0.05
"""Of one core. Timers of a server that nobody asks need less; one request that is worked on needs all of it."""
GIVE_UP_S = 300.0


class Restless(Exception):
    """Servers did not come to rest; the message says for how long they were waited for."""


class Clock(Protocol):
    """Time that is waited in; tests bring their own."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary origin."""

    def sleep(self, seconds: float, /) -> None:
        """Let time pass."""


def cpu_s(pid: int) -> float:
    """CPU time that the threads of a process have used."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def await_rest(pids: Collection[int], clock: Clock = time, used_s: Callable[[int], float] = cpu_s) -> None:
    """Return when all of these processes have used next to no CPU for a moment.

    Raises:
        Restless: that has not happened within GIVE_UP_S.
    """
    started = clock.monotonic()
    before, since = sum(map(used_s, pids)), started
    while since - started < GIVE_UP_S:
        clock.sleep(WINDOW_S)
        after, now = sum(map(used_s, pids)), clock.monotonic()
        if after - before < SHARE * (now - since):
            return
        before, since = after, now
    raise Restless(f"The servers were still at work {GIVE_UP_S:g} s after the last request.")
