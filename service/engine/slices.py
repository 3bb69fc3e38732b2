"""How soon the event loop's thread gets a core when something comes: Linux's slices.

Linux lets a thread that is running go on for a slice of some milliseconds before one that has just been woken, unless
that one asks for a shorter slice. The device thread runs nearly all the time, so without this the event loop, where it
shares a core with it, finds a deadline's timer or a request late by a slice. It gets no larger share of the core, and
needs no privilege. Elsewhere, and before Linux 6.12, nothing changes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
import sys

SHORT_S = 1e-4
"""The shortest that Linux grants."""
SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""Number of the system call; the C library has no function for it before glibc 2.41."""


def shorten() -> bool:
    """Ask for short slices for the calling thread, and those it starts; whether the system has agreed."""
    return _ask(SHORT_S)


def granted() -> bool:
    """Whether the calling thread would get short slices here; it has the system's own afterwards."""
    return shorten() and restore()


def restore() -> bool:
    """Give the calling thread slices of the system's own length again."""
    return _ask(0.0)


def _ask(seconds: float) -> bool:
    number = SCHED_SETATTR.get(platform.machine())
    if sys.platform != "linux" or number is None:
        return False
    with contextlib.suppress(OSError):
        if os.sched_getscheduler(0) != os.SCHED_OTHER:
            # The operator has chosen another policy.
            return False
        # struct sched_attr, of 48 bytes in its first version; the slice is its `sched_runtime`, in nanoseconds.
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        attributes = struct.pack("=IIQiIQQQ", 48, os.SCHED_OTHER, 0, nice, 0, round(seconds * 1e9), 0, 0)
        return bool(ctypes.CDLL(None).syscall(number, 0, attributes, 0) == 0)
    return False
