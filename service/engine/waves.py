"""Waves: members that may run side by side, because no path of the DAG leads from one to another."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from bundle import Manifest


def waves(manifest: Manifest) -> tuple[range, ...]:
    """Every member in its wave, in list order: each as long as can be.

    Two kinds of member are waves of their own. The first is the mandatory part of every answer, which nothing may
    delay. A last one that replaces the answer makes those before it needless: they would only take its time.
    """
    found: list[range] = []
    for member in manifest.members:
        start = found[-1].start if found else 0
        # Between members that follow each other, a path goes through nobody else: only through direct links.
        apart = all(link.from_member < start for link in member.connections)
        if start > 0 and apart and member.combine == "mean":
            found[-1] = range(start, member.index + 1)
        else:
            found.append(range(member.index, member.index + 1))
    return tuple(found)


def wide_waves(manifest: Manifest) -> tuple[range, ...]:
    """The waves of more than one member."""
    return tuple(wave for wave in waves(manifest) if len(wave) > 1)


def makespan(durations_s: Iterable[float], lanes: int) -> float:
    """Seconds until the last of these ends, each begun in turn on the first of `lanes` lanes that is free."""
    free_at = [0.0] * lanes
    for duration_s in durations_s:
        heapq.heapreplace(free_at, free_at[0] + duration_s)
    return max(free_at)
