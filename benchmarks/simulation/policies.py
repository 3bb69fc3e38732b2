"""A trace, and our scheduler on it: driven on a virtual clock as the gate and the worker drive it on a real one."""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.simulation.world import EDGES, MAX_BATCH_ROWS, MEMBER_S, World, cost_model, seconds
from service.engine.deadline import Deadline
from service.engine.preemption import Preemption
from service.engine.scheduler import Scheduler
from service.engine.step import Running, Step
from service.engine.ticket import Exit, StoppedBy, Ticket

Floats = npt.NDArray[np.float64]
MODEL = "ladder/1"
TOTAL = len(MEMBER_S)
ONE_ROW = np.zeros((1, 0), np.float32)
NOBODY = np.zeros(0, np.intp)
ROUNDING_S = 1e-9

HALT_LASTS_S = 5e-4
"""From the call until a step that is given up has ended; nine in ten were faster (`python -m benchmarks.halt`)."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests of one row each."""

    arrived: Floats
    """(requests,), ascending seconds."""
    due: Floats
    """(requests,)"""
    paths: npt.NDArray[np.intp]
    """(requests, 7): band of each after each small member."""
    worth: Floats
    """(requests, 9): accuracy of the answer after 0, 1, ... 8 members; 0 after none."""

    def __len__(self) -> int:
        return len(self.arrived)


def make_trace(world: World, arrived: Floats, budgets: Floats, random: np.random.Generator) -> Trace:
    """A trace of fresh samples."""
    paths = world.paths(len(arrived), random)
    worth = np.zeros((len(arrived), TOTAL + 1))
    for k in range(TOTAL - 1):
        worth[:, k + 1] = world.ahead[k][paths[:, k], 0]
    worth[:, TOTAL] = world.ahead[-1][paths[:, -1], 1]
    return Trace(arrived, arrived + budgets, paths, worth)


@dataclass(slots=True)
class Served:
    """What came of a trace."""

    depth: npt.NDArray[np.intp]
    """(requests,): members in the answer; 0 for none."""
    steps: int
    rows: int
    elapsed_s: float
    given_up: int = 0
    """Steps that were ended early, ours only; not among `steps`."""
    scheduling_s: float = 0.0
    """Processor time spent in the scheduler's decisions, ours only."""


class Driver:
    """Drives the service's own scheduler on a virtual clock, as the gate and the worker do on a real one.

    Args:
        world: the ensemble.
        trace: the requests.
        exit_confidence: what all of them ask for: an edge of the bands.
        noise: standard deviation of the logarithm of what a step lasts over what it should; 0: as predicted.
    """

    def __init__(self, world: World, trace: Trace, exit_confidence: float | None = None, noise: float = 0.0) -> None:
        self._trace = trace
        self._exit = None
        if exit_confidence is not None:
            self._exit = Exit((exit_confidence,) * (TOTAL - 1), StoppedBy.EXIT_CONFIDENCE)
            self._sure = EDGES.index(exit_confidence) + 1
        self._arrived, self._due = trace.arrived.tolist(), trace.due.tolist()
        self._paths = trace.paths.tolist()
        self._profile = world.profile()
        self._costs = cost_model(MODEL)
        self._engine = Scheduler(self._costs, MAX_BATCH_ROWS)
        self._preemption = Preemption(self._costs)
        self._noise, self._random = noise, np.random.default_rng(2)
        self._index: dict[Ticket, int] = {}
        self._timers: list[tuple[float, int, Ticket]] = []
        self._coming = 0
        self.served = Served(np.zeros(len(trace), np.intp), 0, 0, 0.0)

    def run(self) -> Served:
        """Serve the whole trace."""
        now = 0.0
        while self._coming < len(self._trace) or self._index:
            now = self._one_step(now)
        self.served.elapsed_s = now
        return self.served

    def _one_step(self, now: float) -> float:
        self._let_in(now)
        self._expire(now)
        # The cost that is measured: what the scheduler adds to a step, batches formed and tickets put back.
        begun = time.process_time()
        step = self._engine.next_step(now)
        self.served.scheduling_s += time.process_time() - begun
        for settled in self._engine.take_settled():
            self._index.pop(settled.ticket, None)
        if step is None:
            events = [self._arrived[self._coming]] if self._coming < len(self._trace) else []
            events += [due for due, _, _ in self._timers[:1]]
            return max(now, min(events)) + 1e-9 if events else now
        return self._run(step, now)

    def _run(self, step: Step, now: float) -> float:
        """Run a step, and return when it has ended."""
        if self._noise == 0.0 and not step.tickets:
            return now
        noise = self._random.lognormal(0.0, self._noise) if self._noise else 1.0
        duration_s = seconds(step.member, step.rows) * noise
        given_up_at = self._given_up_at(step, now, now + duration_s)
        if given_up_at is not None:
            self.served.given_up += 1
            self._engine.complete(step.tickets, given_up_at)
            return given_up_at
        if self._noise:
            self._costs.observe(MODEL, step.member, step.rows, duration_s, now + duration_s)
        return self._finish(step, now + duration_s)

    def _given_up_at(self, step: Step, began: float, end: float) -> float | None:
        """When the step will have ended early for somebody who comes while it runs; None: nobody has it given up."""
        if step.halt is None:
            return None
        running = Running(began + self._costs.predict(MODEL, step.member, step.rows, began), step, began)
        for at in range(self._coming, len(self._trace)):
            arrived = self._arrived[at]
            if arrived + HALT_LASTS_S >= end:
                break
            if self._preemption.halt(running, self._ticket(at), arrived) is not None:
                return float(arrived + HALT_LASTS_S)
        return None

    def _let_in(self, now: float) -> None:
        while self._coming < len(self._trace) and self._arrived[self._coming] <= now:
            at = self._coming
            ticket = self._ticket(at)
            self._index[ticket] = at
            heapq.heappush(self._timers, (self._due[at], at, ticket))
            self._engine.admit(ticket, now)
            self._coming += 1

    def _ticket(self, at: int) -> Ticket:
        due = self._due[at]
        deadline = Deadline(self._arrived[at], at=due, answer_by=due, last=due)
        return Ticket("", MODEL, ONE_ROW, deadline, self._profile, TOTAL, TOTAL, exit=self._exit)

    def _expire(self, now: float) -> None:
        """The gate's timers."""
        while self._timers and self._timers[0][0] < now:
            self._engine.cancel(heapq.heappop(self._timers)[2], StoppedBy.ABANDONED)

    def _finish(self, step: Step, now: float) -> float:
        members = step.member + 1
        self.served.steps += 1
        self.served.rows += step.rows
        for ticket in step.tickets:
            at = self._index[ticket]
            ticket.depth = members
            if now <= self._due[at] + ROUNDING_S:
                self.served.depth[at] = members
            band = self._paths[at][members - 1] if members < TOTAL else 0
            ticket.outlook = self._profile.ahead[members - 1][band]
            if self._exit is not None and members < TOTAL and band >= self._sure:
                ticket.retain(NOBODY)
        begun = time.process_time()
        self._engine.complete(step.tickets, now)
        self.served.scheduling_s += time.process_time() - begun
        return now


def ours(world: World, trace: Trace, exit_confidence: float | None = None, noise: float = 0.0) -> Served:
    """The service's scheduler; requests may ask to leave at a confidence, and steps last longer or shorter."""
    return Driver(world, trace, exit_confidence, noise).run()


def timely_accuracy(trace: Trace, served: Served) -> float:
    """Right answers in time over requests sent."""
    return float(trace.worth[np.arange(len(trace)), served.depth].mean())
