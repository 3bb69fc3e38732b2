"""Are members faster together, side by side or in one go? Measured at warm-up, in turns with one after another.

Each is timed on zeros at every batch size, run by run like a rehearsal; in turns, so that a neighbour that slows the
machine for a while slows both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from service.engine.cost import batch_sizes
from service.engine.deadline import Clock
from service.engine.executor import Executor, Together
from service.engine.recent import at_quantile
from service.engine.rehearsal import BUDGET_S, MAX_RUNS, MIN_RUNS
from service.engine.shared_cost import Cost
from service.engine.step import Step

UNCOUNTED_HEATS = 2
"""Sessions of several members have not been run before; the others have been rehearsed."""

MARGIN = 0.1
"""A wave is worth its memory and its longer steps if it takes this much less time than its members in turn."""


@dataclass(frozen=True, slots=True)
class Heat:
    """What the race gave at one batch size: medians, in seconds."""

    rows: int
    together_s: float
    one_by_one_s: float

    @property
    def faster(self) -> bool:
        """Whether together they won, by the margin."""
        return self.together_s <= (1 - MARGIN) * self.one_by_one_s


class Race:
    """Measures members of a loaded model, a wave or a group; used on the thread that owns the device.

    One after another each member runs the way that `costs`, of all members, say.
    """

    def __init__(
        self,
        executor: Executor,
        together: Together,
        model: str,
        members: range,
        costs: Sequence[Cost],
        max_batch_rows: int,
        clock: Clock,
    ) -> None:
        self.members = members
        self._costs = costs
        self.durations_s: dict[int, list[float]] = {}
        """Of all of them together, by batch size."""
        self._in_turn_s: dict[int, list[float]] = {}
        self._executor, self._together = executor, together
        self._clock = clock
        self._runs = self._walk(model, batch_sizes(max_batch_rows))

    def advance(self) -> float | None:
        """Run all of them, or one, once: its seconds, or None when all has been measured."""
        return next(self._runs, None)

    def heats(self) -> tuple[Heat, ...]:
        """What was measured, by ascending batch size."""
        return tuple(
            Heat(rows, at_quantile(sorted(durations), 0.5), at_quantile(sorted(self._in_turn_s[rows]), 0.5))
            for rows, durations in self.durations_s.items()
        )

    def _walk(self, model: str, sizes: Sequence[int]) -> Iterator[float]:
        for rows in sizes:
            all_of_them = Step(model, self.members.start, (), rows, len(self.members))
            durations, in_turn = self.durations_s.setdefault(rows, []), self._in_turn_s.setdefault(rows, [])
            for _ in range(UNCOUNTED_HEATS):
                yield self._run(all_of_them)
            while len(durations) < MIN_RUNS or (len(durations) < MAX_RUNS and sum(durations) < BUDGET_S):
                durations.append(self._run(all_of_them))
                yield durations[-1]
                spent_s = 0.0
                for member in self.members:
                    alone = Step(model, member, (), rows, on_one_thread=self._costs[member].on_one_thread(rows))
                    spent_s += (ran_s := self._run(alone))
                    yield ran_s
                in_turn.append(spent_s)

    def _run(self, step: Step) -> float:
        started = self._clock.now()
        if step.width > 1:
            for _ in self._together.run(step):
                pass
        else:
            self._executor.run(step)
        return self._clock.now() - started
