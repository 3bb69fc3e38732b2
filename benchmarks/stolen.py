"""Time that the host of a virtual machine gave to others while this one wanted it; none on a machine of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

STAT = Path("/proc/stat")
BEARABLE = 0.02
"""Share of the processors' time. In bad moments it is much more, and steps take several times as long."""
TRIES = 2


class Stolen:
    """A clock of it, from when it is made."""

    def __init__(self, stat: Path = STAT) -> None:
        self._stat = stat
        self._stolen, self._all = self._read()

    def share(self) -> float:
        """Of the processors' time since then; 0 where the system does not say."""
        stolen, all_of_it = self._read()
        return (stolen - self._stolen) / max(1, all_of_it - self._all)

    def _read(self) -> tuple[int, int]:
        try:
            # user, nice, system, idle, iowait, irq, softirq, steal; guests are counted in user.
            ticks = [int(field) for field in self._stat.read_text().split("\n", 1)[0].split()[1:9]]
        except (OSError, ValueError):
            return 0, 0
        return (ticks[7] if len(ticks) > 7 else 0), sum(ticks)


class Disturbed(Protocol):
    """What a run gives."""

    @property
    def stolen(self) -> float:
        """Share of the time that was taken while it ran."""


Run = TypeVar("Run", bound=Disturbed)


def undisturbed(run: Callable[[], Run], before: Callable[[], object] = lambda: None) -> Run:
    """The first of TRIES runs in which no more than BEARABLE was taken; else the one in which least was.

    Args:
        run: of what is measured.
        before: called before each run.
    """
    runs: list[Run] = []
    while len(runs) < TRIES:
        before()
        runs.append(run())
        if runs[-1].stolen <= BEARABLE:
            return runs[-1]
    return min(runs, key=lambda one: one.stolen)
