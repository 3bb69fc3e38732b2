"""Warm-up: run every member at every batch size on zeros, and time it.

First runs are slow (memory arenas grow, kernels are chosen, graphs are captured), so they are not counted. Where the
executor knows several ways to run a member, the best of those that share its work among threads is found and chosen.
It and the way on one thread are both timed, the better one longer, for either may be better later (`SharedCost`). A
model is rehearsed run by run, so that one which is loaded under traffic can be measured between the steps of requests;
see `Host`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

from service.engine.cost import batch_sizes
from service.engine.deadline import Clock
from service.engine.executor import Executor
from service.engine.member_cost import MemberCost
from service.engine.shared_cost import WORTH_SHARING, Cost, SharedCost
from service.engine.step import Step

UNCOUNTED_RUNS = 4
"""Two plain runs, one that captures a graph, and its first replay."""
MIN_RUNS, MAX_RUNS = 5, 30
BUDGET_S = 0.2
"""Time to spend on one member at one batch size, between MIN_RUNS and MAX_RUNS runs."""
TRIALS = 7
"""Counted runs of each way, at most: while they take less than BUDGET_S together."""
CLEARLY = 0.8
"""Of the turns, that a way which takes more must win by WORTH_SHARING: on a busy machine either wins some."""
WORTH_SHARING_S = 1e-4
"""What the first way does sooner than this is not tried further: to wake another thread takes half as long."""


def rehearse(
    executor: Executor, model: str, members: int, max_batch_rows: int, safety: float, clock: Clock
) -> list[Cost]:
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
        self._alone_s: list[dict[int, list[float]]] = [{} for _ in range(members)]
        """Of each member, by batch size, the first way."""
        self._shared_s: list[dict[int, list[float]]] = [{} for _ in range(members)]
        """The best of the other ways, where they were tried."""
        self._runs = self._walk(model, batch_sizes(max_batch_rows))

    def advance(self) -> float | None:
        """Run one member once: its seconds, or None when all has been measured."""
        return next(self._runs, None)

    def costs(self, safety: float) -> list[Cost]:
        """What was measured, member by member; `safety` is the quantile that predictions use."""
        now = self._clock.now()
        return [
            SharedCost(shared, alone, safety, now) if shared else MemberCost(alone, safety)
            for shared, alone in zip(self._shared_s, self._alone_s, strict=True)
        ]

    def _walk(self, model: str, sizes: Sequence[int]) -> Iterator[float]:
        for member, alone in enumerate(self._alone_s):
            for rows in sizes:
                step = Step(model, member, (), rows)
                trials_s = yield from self._try_ways(step)
                if trials_s is None:
                    yield from self._time(step, alone.setdefault(rows, []))
                    continue
                alone[rows], self._shared_s[member][rows] = on_one, on_all = trials_s
                if min(on_one) <= min(on_all) * WORTH_SHARING:
                    yield from self._time(step._replace(on_one_thread=True), on_one)
                else:
                    yield from self._time(step, on_all)

    def _try_ways(self, step: Step) -> Generator[float, None, tuple[list[float], list[float]] | None]:
        """Choose how the step's member is run on several threads: the seconds of the first way, and of the chosen one.

        The ways are tried in turn, so that a slow moment hits all alike. None: there is no other way, or no reason to
        try it.
        """
        ways = self._executor.ways(step.model, step.member)
        if ways < 2:
            return None
        trials_s: list[list[float]] = [[] for _ in range(ways)]
        for trial in range(1 + TRIALS):
            for way in range(ways):
                self._executor.choose(step, way)
                ran_s = self._run(step)
                yield ran_s
                if trial:
                    trials_s[way].append(ran_s)
                if trial and min(trials_s[0]) < WORTH_SHARING_S:
                    return None
            if sum(map(sum, trials_s)) >= BUDGET_S:
                break
        best = 1
        for way in range(2, ways):
            if _clearly_faster(trials_s[way], trials_s[best]):
                best = way
        self._executor.choose(step, best)
        return trials_s[0], trials_s[best]

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


def _clearly_faster(trials_s: Sequence[float], others_s: Sequence[float]) -> bool:
    """Whether one way is worth what it takes more than another, which ran right before it or after it each time."""
    won = sum(one * WORTH_SHARING <= other for one, other in zip(trials_s, others_s, strict=True))
    return won >= CLEARLY * len(trials_s)
