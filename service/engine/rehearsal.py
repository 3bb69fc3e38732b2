"""Warm-up: run every member at every batch size on zeros, and time it.

First runs are slow (memory arenas grow, kernels are chosen, graphs are captured), so they are not counted. Where the
executor knows several ways to run a member, the fastest is found and chosen before the member is timed. A model is
rehearsed run by run, so that one which is loaded under traffic can be measured between the steps of requests; see
`Host`.
"""

from __future__ import annotations

from collections.abc import Iterator

from service.engine.cost import batch_sizes
from service.engine.deadline import Clock
from service.engine.executor import Executor
from service.engine.member_cost import WORTH_SHARING, MemberCost, SharedCost
from service.engine.step import Step

UNCOUNTED_RUNS = 4
"""Two plain runs, one that captures a graph, and its first replay."""
MIN_RUNS, MAX_RUNS = 5, 30
BUDGET_S = 0.2
"""Time to spend on one member at one batch size, between MIN_RUNS and MAX_RUNS runs."""
TRIALS = 7
"""Counted runs of each way, at most: while they take less than BUDGET_S together."""
WORTH_SHARING_S = 1e-4
"""What the first way does sooner than this is not tried further: to wake another thread takes half as long."""


def rehearse(
    executor: Executor, model: str, members: int, max_batch_rows: int, safety: float, clock: Clock
) -> list[MemberCost]:
    """Measure a loaded model in one go, on a device that nobody else uses."""
    rehearsal = Rehearsal(executor, model, members, max_batch_rows, clock)
    while rehearsal.advance() is not None:
        pass
    return rehearsal.costs(safety)


class Rehearsal:
    """Measures the members of a loaded model; used on the thread that owns the device."""

    def __init__(self, executor: Executor, model: str, members: int, max_batch_rows: int, clock: Clock) -> None:
        self._executor = executor
        self._clock = clock
        self._durations_s: list[dict[int, list[float]]] = [{} for _ in range(members)]
        self._on_one_thread_s: list[dict[int, list[float]]] = [{} for _ in range(members)]
        """Of those that were chosen to run otherwise at some batch size."""
        self._runs = self._walk(model, batch_sizes(max_batch_rows))

    def advance(self) -> float | None:
        """Run one member once: its seconds, or None when all has been measured."""
        return next(self._runs, None)

    def costs(self, safety: float) -> list[MemberCost]:
        """What was measured, member by member; `safety` is the quantile that predictions use."""
        return [
            SharedCost(durations, durations | alone, safety) if alone else MemberCost(durations, safety)
            for durations, alone in zip(self._durations_s, self._on_one_thread_s, strict=True)
        ]

    def _walk(self, model: str, sizes: list[int]) -> Iterator[float]:
        for member, durations in enumerate(self._durations_s):
            for rows in sizes:
                step = Step(model, member, (), rows)
                yield from self._try_ways(step)
                yield from self._time(step, durations.setdefault(rows, []))

    def _try_ways(self, step: Step) -> Iterator[float]:
        """Choose how the step's member is run; the ways in turn, so that a slow moment hits all alike."""
        ways = self._executor.ways(step.model, step.member)
        if ways < 2:
            return
        trials_s: list[list[float]] = [[] for _ in range(ways)]
        for trial in range(1 + TRIALS):
            for way in range(ways):
                self._executor.choose(step, way)
                ran_s = self._run(step)
                yield ran_s
                if trial:
                    trials_s[way].append(ran_s)
                if trial and min(trials_s[0]) < WORTH_SHARING_S:
                    return
            if sum(map(sum, trials_s)) >= BUDGET_S:
                break
        fastest_s = [min(seconds) for seconds in trials_s]
        enough_s = min(fastest_s) * WORTH_SHARING
        chosen = next(way for way, seconds in enumerate(fastest_s) if seconds <= enough_s)
        self._executor.choose(step, chosen)
        if chosen:
            self._on_one_thread_s[step.member][step.rows] = trials_s[0]

    def _time(self, step: Step, durations: list[float]) -> Iterator[float]:
        for _ in range(UNCOUNTED_RUNS):
            yield self._run(step)
        while len(durations) < MIN_RUNS or (len(durations) < MAX_RUNS and sum(durations) < BUDGET_S):
            durations.append(self._run(step))
            yield durations[-1]

    def _run(self, step: Step) -> float:
        started = self._clock.now()
        self._executor.run(step)
        return self._clock.now() - started
