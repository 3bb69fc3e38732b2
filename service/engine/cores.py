"""How many cores this process may compute on: its affinity and its container's quota, not what the machine has.

A container of two cores on a machine of 64 that ran 64 threads would be stopped by its quota in the middle of a step,
the event loop with them.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from service.engine import slices

CGROUP = Path("/sys/fs/cgroup")
"""Where Linux shows a container its own limits."""


def cores(cgroup: Path = CGROUP) -> int:
    """Cores to compute on, 1 at least."""
    # Not on every system is there an affinity to ask for.
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    # Half a core over is no core.
    return own if quota is None else max(1, min(own, int(quota)))


def compute_threads() -> int:
    """Threads for a member: all cores where the event loop is given one when it asks, else one is left to it."""
    return cores() if slices.granted() else max(1, cores() - 1)


def _quota(cgroup: Path) -> float | None:
    """Cores that the container is granted, as a share of time; None if all it can get."""
    with contextlib.suppress(OSError, ValueError):
        granted, period = (cgroup / "cpu.max").read_text().split()
        return None if granted == "max" else int(granted) / int(period)
    with contextlib.suppress(OSError, ValueError):
        # The first version of control groups; -1 sets no bound.
        granted_us = int((cgroup / "cpu/cpu.cfs_quota_us").read_text())
        period_us = int((cgroup / "cpu/cpu.cfs_period_us").read_text())
        return granted_us / period_us if granted_us > 0 else None
    return None
