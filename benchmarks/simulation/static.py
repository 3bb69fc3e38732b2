"""What our scheduler is held against: servers whose depth does not depend on the load, and one that is greedy."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.simulation.policies import ROUNDING_S, TOTAL, Served, Trace, timely_accuracy
from benchmarks.simulation.world import MAX_BATCH_ROWS, MEMBER_S, seconds

Members = Sequence[int]
Queue = list[tuple[float, int]]
"""A heap: what a request is ordered by, and its number."""

TEACHER = "teacher alone"
CHOICES: dict[str, Members] = {
    **{f"depth {depth}": range(depth) for depth in range(1, TOTAL + 1)},
    TEACHER: (TOTAL - 1,),
}
"""Members that a static server may run for a request."""


def static(trace: Trace, members: Members, *, fifo: bool = False) -> Served:
    """The same members for everybody, in one step; earliest deadline first, the hopeless dropped.

    With `fifo`, as a plain server does it: in order of arrival, without a look at the deadlines.
    """
    return _serve(trace, np.zeros(len(trace), np.intp), [members], fifo=fifo)


def by_budget(trace: Trace, plan: Sequence[str]) -> Served:
    """As `static`, with a choice for each budget of the trace, ascending; requests of one choice share steps."""
    used = list(dict.fromkeys(plan))
    kinds = np.asarray([used.index(choice) for choice in plan])[_budgets(trace)]
    return _serve(trace, kinds, [CHOICES[choice] for choice in used], fifo=False)


def best_by_budget(trace: Trace) -> tuple[tuple[str, ...], float]:
    """The plan that is found to do best on this very trace, and its timely accuracy.

    Coordinate ascent from each choice for all budgets: one budget at a time takes its best choice until none changes.
    """
    reached: dict[tuple[str, ...], float] = {}

    def worth(plan: tuple[str, ...]) -> float:
        if plan not in reached:
            reached[plan] = timely_accuracy(trace, by_budget(trace, plan))
        return reached[plan]

    for choice in CHOICES:
        plan, begun = (choice,) * (int(_budgets(trace).max()) + 1), None
        while plan != begun:
            begun = plan
            for at in range(len(plan)):
                plan = max((plan, *((*plan[:at], other, *plan[at + 1 :]) for other in CHOICES)), key=worth)
    best = max(reached, key=reached.__getitem__)
    return best, reached[best]


def _budgets(trace: Trace) -> npt.NDArray[np.intp]:
    """Of each request, its budget's place among all, ascending."""
    return np.unique((trace.due - trace.arrived).round(9), return_inverse=True)[1]


def _serve(trace: Trace, kinds: npt.NDArray[np.intp], members: Sequence[Members], *, fifo: bool) -> Served:
    """A queue for each kind of request; the one whose head comes first has the device for a step of its members."""
    durations = [[0.0] + [sum(seconds(m, n) for m in one) for n in range(1, MAX_BATCH_ROWS + 1)] for one in members]
    arrived, due, queue_of = trace.arrived.tolist(), trace.due.tolist(), kinds.tolist()
    served = Served(np.zeros(len(trace), np.intp), 0, 0, 0.0)
    waiting: list[Queue] = [[] for _ in members]
    take: Callable[[Queue, list[float], float], list[int]] = _by_arrival if fifo else _by_deadline
    now, coming = 0.0, 0
    while coming < len(trace) or any(waiting):
        if not any(waiting) and arrived[coming] > now:
            now = arrived[coming]
        while coming < len(trace) and arrived[coming] <= now:
            heapq.heappush(waiting[queue_of[coming]], (arrived[coming] if fifo else due[coming], coming))
            coming += 1
        kind = min((queue[0], kind) for kind, queue in enumerate(waiting) if queue)[1]
        batch = take(waiting[kind], durations[kind], now)
        if not batch:
            continue
        now += durations[kind][len(batch)]
        served.steps, served.rows = served.steps + 1, served.rows + len(batch)
        for at in batch:
            if now <= due[at] + ROUNDING_S:
                served.depth[at] = members[kind][-1] + 1
    return served


def _by_arrival(waiting: Queue, durations: list[float], now: float) -> list[int]:
    return [heapq.heappop(waiting)[1] for _ in range(min(len(waiting), MAX_BATCH_ROWS))]


def _by_deadline(waiting: Queue, durations: list[float], now: float) -> list[int]:
    """As many as fit before the earliest of their deadlines; those that do not even fit alone are dropped."""
    batch: list[int] = []
    tightest = np.inf
    while waiting and len(batch) < MAX_BATCH_ROWS:
        due, at = waiting[0]
        if now + durations[1] > due:
            heapq.heappop(waiting)
            continue
        tightest = min(tightest, due)
        if batch and now + durations[len(batch) + 1] > tightest:
            break
        batch.append(at)
        heapq.heappop(waiting)
    return batch


def greedy_depth(trace: Trace) -> Served:
    """Earliest deadline first; each request as deep as its deadline allows before the next one has the device."""
    arrived, due = trace.arrived.tolist(), trace.due.tolist()
    depth = [0] * len(trace)
    waiting: list[tuple[float, int]] = []
    now, coming, steps = 0.0, 0, 0
    while coming < len(trace) or waiting:
        if not waiting and arrived[coming] > now:
            now = arrived[coming]
        while coming < len(trace) and arrived[coming] <= now:
            heapq.heappush(waiting, (due[coming], coming))
            coming += 1
        by, at = waiting[0]
        if depth[at] == TOTAL or now + MEMBER_S[depth[at]] > by:
            heapq.heappop(waiting)
            continue
        now += MEMBER_S[depth[at]]
        depth[at] += 1
        steps += 1
    return Served(np.asarray(depth), steps, steps, now)
