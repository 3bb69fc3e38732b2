"""A worker that runs what a test wants to see."""

from __future__ import annotations

import queue
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bundle import Bundle
from bundle.reference import running_average
from service.engine.cost import CostModel
from service.engine.scheduler import Scheduler
from service.engine.step import Settled, Step
from service.engine.ticket import StoppedBy, Ticket
from service.engine.worker import Worker
from tests.fakes import ticket


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


def check(bundle: Bundle, one: Ticket, depth: int) -> None:
    """A request has the reference's prefix of so many members."""
    assert one.published.members == depth
    np.testing.assert_allclose(one.published.logits, list(running_average(bundle, one.inputs))[depth - 1], atol=1e-5)


def check_company(subject: Bench, bundle: Bundle, member: int) -> None:
    """Of three requests the second is at fault in a member, and only it loses that."""
    company = [ticket(rows=2, members=4, seed=seed) for seed in range(3)]
    outcomes = subject.run(*company)
    assert [outcomes[one] for one in company] == [StoppedBy.COMPLETE, StoppedBy.MEMBER_FAILED, StoppedBy.COMPLETE]
    for one in company:
        check(bundle, one, member if one is company[1] else 4)
