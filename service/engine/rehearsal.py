"""Warm-up: run every member at every batch size on zeros, and time it.

First runs are slow (memory arenas grow, kernels are chosen), so they are not counted.
"""

from __future__ import annotations

from service.engine.cost import MemberCost, batch_sizes
from service.engine.deadline import Clock
from service.engine.executor import Executor
from service.engine.scheduler import Step

UNCOUNTED_RUNS = 2
MIN_RUNS, MAX_RUNS = 5, 30
BUDGET_S = 0.2
"""Time to spend on one member at one batch size, between MIN_RUNS and MAX_RUNS runs."""


def rehearse(
    executor: Executor, model: str, members: int, max_batch_rows: int, safety: float, clock: Clock
) -> list[MemberCost]:
    """Measure the cost of each member of a loaded model; on the thread that owns the device."""
    return [
        MemberCost(
            {rows: _time(executor, Step(model, member, (), rows), clock) for rows in batch_sizes(max_batch_rows)},
            safety,
        )
        for member in range(members)
    ]


def _time(executor: Executor, step: Step, clock: Clock) -> list[float]:
    for _ in range(UNCOUNTED_RUNS):
        executor.run(step)
    durations: list[float] = []
    while len(durations) < MIN_RUNS or (len(durations) < MAX_RUNS and sum(durations) < BUDGET_S):
        started = clock.now()
        executor.run(step)
        durations.append(clock.now() - started)
    return durations
