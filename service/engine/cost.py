"""Predicted durations of all members of all served models, for the scheduler and the gate. Standard library only.

Steps take longer while the event loop has a burst of requests before it: it wants a core, and Python's lock. What they
take then says nothing of what they take as soon as it is through, and the other way round; so both are learned, each
from its own steps, and predicted for what the loop is doing now (`look`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

from service.engine.fused_costs import FusedCosts
from service.engine.shared_cost import Cost
from service.engine.wave_costs import WaveCosts


class Crowd(Protocol):
    """What the event loop has before it; read from the device thread."""

    @property
    def crowded(self) -> bool:
        """Whether anything waits for it."""

    contested: int
    """How often anything had to wait so far."""


class _Nobody:
    """A loop that nothing waits for."""

    crowded = False
    contested = 0


class CostModel:
    """Predicted durations of all members of all served models."""

    def __init__(self) -> None:
        self._crowd: Crowd = _Nobody()
        self._crowded = False
        self._contested = 0
        self._members: dict[str, list[Cost]] = {}
        self._in_crowd: dict[str, list[Cost]] = {}
        self._waves: dict[str, WaveCosts] = {}
        self._fused: dict[str, FusedCosts] = {}
        self._each: dict[tuple[bool, str, int], tuple[list[float], float]] = {}

    def add(
        self, model: str, members: Sequence[Cost], waves: WaveCosts | None = None, fused: FusedCosts | None = None
    ) -> None:
        """Start to predict for a model's members, and for its waves and its groups if any are to be run."""
        self.remove(model)
        self._members[model] = list(members)
        self._in_crowd[model] = copy.deepcopy(self._members[model])
        if waves is not None:
            self._waves[model] = waves
        if fused is not None:
            self._fused[model] = fused

    def remove(self, model: str) -> None:
        """Forget a model that has been unloaded."""
        self._members.pop(model, None)
        self._in_crowd.pop(model, None)
        self._waves.pop(model, None)
        self._fused.pop(model, None)
        self._each.clear()

    def waves(self, model: str) -> WaveCosts | None:
        """What waves of a model take; None if its members run one after another."""
        return self._waves.get(model)

    def fused(self, model: str) -> FusedCosts | None:
        """What groups of a model take in one run; None if each member has a run of its own."""
        return self._fused.get(model)

    def watch(self, crowd: Crowd) -> None:
        """Tell apart what is learned while the loop is crowded; before the device thread is started."""
        self._crowd = crowd

    def look(self) -> None:
        """See whether the loop is crowded: predictions are for that until the next look."""
        self._crowded, self._contested = self._crowd.crowded, self._crowd.contested

    def predict(self, model: str, member: int, rows: int, now: float) -> float:
        """Seconds for member `member` on `rows` rows."""
        return self._of(model)[member].predict(rows, now)

    def predict_each(self, model: str, rows: int, now: float) -> list[float]:
        """Seconds for each member of a model on `rows` rows; not to be changed by the caller."""
        key = self._crowded, model, rows
        known = self._each.get(key)
        if known is not None and now <= known[1]:
            return known[0]
        members = self._of(model)
        each = [member.predict(rows, now) for member in members]
        self._each[key] = each, min(member.holds_until(rows) for member in members)
        return each

    def typical(self, model: str, member: int, rows: int) -> float:
        """Median seconds at warm-up; unlike `predict`, it may be asked from any thread."""
        return self._of(model)[member].curve(rows)

    def usually(self, model: str, member: int, rows: int) -> float:
        """Seconds that half of the latest steps took no longer than, for their size; from any thread."""
        return self._of(model)[member].usually(rows)

    def on_one_thread(self, model: str, member: int, rows: int) -> bool:
        """Whether a step is to have one thread where it could have more."""
        return self._of(model)[member].on_one_thread(rows)

    def doubtful(self, model: str, member: int, rows: int, now: float) -> bool:
        """Whether such a step should have more than its one thread, to see whether that is still worse."""
        return self._of(model)[member].doubtful(rows, now)

    def observe(
        self, model: str, member: int, rows: int, duration_s: float, now: float, *, on_one_thread: bool = False
    ) -> None:
        """Learn from a finished step."""
        # What came while it ran has slowed it too.
        crowded = self._crowded or self._crowd.contested != self._contested
        members = self._in_crowd if crowded else self._members
        if members[model][member].observe(rows, duration_s, now, on_one_thread=on_one_thread):
            self._each.clear()

    def _of(self, model: str) -> list[Cost]:
        return (self._in_crowd if self._crowded else self._members)[model]


# The scheduler asks at each step, always for the same.
@lru_cache(maxsize=16)
def batch_sizes(largest: int) -> tuple[int, ...]:
    """Batch sizes to rehearse: powers of two up to `largest`, and `largest` itself."""
    sizes = [2**power for power in range(largest.bit_length()) if 2**power <= largest]
    return tuple(sizes) if sizes[-1] == largest else (*sizes, largest)
