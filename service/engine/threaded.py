"""One member on the CPU, on one thread or on all that it may have: whichever is faster at a batch size.

Threads that share a small member's work wait for each other longer than the work takes; those that share out its rows
need rows enough. Where one is better than the other depends on the machine, so it is measured (`rehearsal`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Protocol

from service.engine.step import Step
from service.engine.ticket import Logits


class Runs(Protocol):
    """A way to run a member: a `CpuMember`, a `SpreadMember` or a `ChunkMember`."""

    def run(self, step: Step) -> Logits:
        """See `Executor.run`."""


class ThreadedMember:
    """Runs each batch size the way that was chosen for it.

    Args:
        ways: the one that takes least from others first.
    """

    def __init__(self, ways: Sequence[Runs]) -> None:
        self.ways = ways
        self._rows: list[int] = []
        self._chosen: dict[int, Runs] = {}

    def choose(self, rows: int, way: int) -> None:
        """Run steps of so many rows this way, and smaller ones down to the next size that was chosen for."""
        self._chosen[rows] = self.ways[way]
        self._rows = sorted(self._chosen)

    def run(self, step: Step) -> Logits:
        """Run one step; see `Executor.run`."""
        way = self.ways[0] if step.on_one_thread else self._way(step.rows)
        return way.run(step)

    def _way(self, rows: int) -> Runs:
        if not self._rows:
            return self.ways[0]
        return self._chosen[self._rows[min(bisect_left(self._rows, rows), len(self._rows) - 1)]]
