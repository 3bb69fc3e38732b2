"""A core of its own for the device thread, where members compute on all of them: Linux's CPU affinity.

Linux starts a thread on an idle core if there is one, and evens out what it finds later, every few milliseconds at
best. While a burst is read there is none: the event loop has one core and a neighbour another. So the device thread and
a thread that shares its step, or the device thread and the event loop, find themselves on one core, and stay there for
the whole step although another has become idle. Steps then take twice as long, and teach that to those after them. Kept
apart they do not: the device thread on its core, all other threads on the others.

A core of its own is of no use if somebody else computes there. Where the device thread is found to have waited for its
core, everybody may run everywhere again for a while, and Linux decides.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from service.engine.deadline import Clock

log = logging.getLogger(__name__)

LOOK_INTERVAL_S = 1.0
"""Between two looks at what the device thread has waited for its core."""

CONTESTED = 0.25
"""Share of the time in which it could have run; if it waited for more, somebody else is on its core."""

BUSY = 0.05
"""Share of the time between two looks: who could have run for less has not been kept from anything."""

FREE_S = 10.0
"""How long it goes without a core of its own then."""

TASKS = Path("/proc/self/task")
WAITED = Path("/proc/thread-self/schedstat")
"""Nanoseconds for which the thread that reads it has run, and for which it could have, but waited."""


class OwnCore:
    """Keeps a core for the thread that enters it, as its context; used on that thread only.

    It belongs into a process that has nothing else to do, because all its threads are kept off that core.

    Args:
        threads: that compute at once. If there are more cores, Linux finds an idle one.
        clock: the time.
    """

    def __init__(self, threads: int, clock: Clock) -> None:
        self._threads = threads
        self._clock = clock
        self._allowed: set[int] | None = None
        self._ran_s = self._waited_s = self._looked_at = 0.0
        self._due = 0.0

    @property
    def kept(self) -> bool:
        """Whether there is such a core now."""
        return self._allowed is not None

    def __enter__(self) -> Self:
        self._claim(self._clock.now())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._free()

    def look(self) -> None:
        """Between two steps: see, now and then, whether the core is worth keeping, or one should be kept again."""
        now = self._clock.now()
        if now < self._due:
            return
        if self._allowed is None:
            self._claim(now)
        elif self._contested(now):
            log.debug("somebody else computes on the core of the device thread: for a while it has none of its own")
            self._free()
            self._due = now + (LOOK_INTERVAL_S if self.kept else FREE_S)

    def _claim(self, now: float) -> None:
        """Keep the core that the thread runs on, which Linux has chosen."""
        self._due = now + FREE_S
        with contextlib.suppress(OSError, AttributeError, ValueError):
            # Of the main thread, and so what the operator has granted, unless one could not be given up.
            allowed = self._allowed or os.sched_getaffinity(os.getpid())
            if not 1 < len(allowed) <= self._threads:
                return
            self._ran_s, self._waited_s = _schedule()
            core = _core()
            os.sched_setaffinity(0, {core})
            self._allowed, self._looked_at, self._due = allowed, now, now + LOOK_INTERVAL_S
            _set_others(allowed - {core})

    def _free(self) -> None:
        if self._allowed is None:
            return
        # Where no file can be opened, for there are too many, it is kept until one can.
        with contextlib.suppress(OSError):
            _set_others(self._allowed)
            os.sched_setaffinity(0, self._allowed)
            self._allowed = None

    def _contested(self, now: float) -> bool:
        before_s, passed_s = (self._ran_s, self._waited_s), now - self._looked_at
        self._due = now + LOOK_INTERVAL_S
        try:
            self._ran_s, self._waited_s = _schedule()
        except OSError:
            return False
        self._looked_at = now
        ran_s, waited_s = self._ran_s - before_s[0], self._waited_s - before_s[1]
        return ran_s + waited_s > BUSY * passed_s and waited_s > CONTESTED * (ran_s + waited_s)


def like_the_process() -> None:
    """Let the calling thread run where the main thread may; for those that the device thread starts."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setaffinity(0, os.sched_getaffinity(os.getpid()))


def _set_others(cores: set[int]) -> None:
    """Let all other threads of the process run on these cores only, and those that they will start."""
    own = threading.get_native_id()
    for thread in map(int, [task.name for task in TASKS.iterdir()]):
        if thread != own:
            # It may have ended just now.
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(thread, cores)


def _schedule() -> tuple[float, float]:
    """Seconds for which the calling thread has run, and waited for its core."""
    ran_ns, waited_ns, _ = WAITED.read_text().split()
    return int(ran_ns) / 1e9, int(waited_ns) / 1e9


def _core() -> int:
    """The core that the calling thread runs on."""
    # The name of the program comes before, in brackets, and may have any in it.
    return int(Path("/proc/thread-self/stat").read_text().rpartition(")")[2].split()[36])
