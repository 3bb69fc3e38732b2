"""A worker that runs what a test wants to see."""

from __future__ import annotations

import queue
from collections.abc import Mapping, Sequence
from typing import Any

from bundle import Bundle
from service.engine.cost import CostModel
from service.engine.scheduler import Scheduler
from service.engine.step import Settled, Step
from service.engine.ticket import StoppedBy, Ticket
from service.engine.worker import Worker


class Bench:
    """A worker on bundles, by their keys; to be started, and stopped.

    Args:
        executor: one that moves a clock of its own.
        costs: of all of them.
        bundles: what is served.
    """

    def __init__(self, executor: Any, costs: CostModel, bundles: Mapping[str, Bundle]) -> None:
        self.settled: queue.SimpleQueue[Settled] = queue.SimpleQueue()
        self.steps: list[Step] = []
        self.costs = costs
        self.worker = Worker(
            executor,
            Scheduler(costs, 16),
            costs,
            executor._clock,
            self._collect,
            lambda step, _: self.steps.append(step),
        )
        for key, bundle in bundles.items():
            executor.load(key, bundle)
            self.worker.serve(key, bundle.manifest)

    def run(self, *company: Ticket) -> dict[Ticket, StoppedBy]:
        # Submitted on the worker's own thread, between two steps: they start together.
        self.worker.call(lambda: [self.worker.submit(one) for one in company]).result(60)
        return {one.ticket: one.stopped_by for one in (self.settled.get(timeout=60) for _ in company)}

    def _collect(self, settled: Sequence[Settled]) -> None:
        for one in settled:
            self.settled.put(one)
