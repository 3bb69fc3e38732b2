"""What the scheduler adds to a step while many requests wait: processor time of `next_step` and `complete`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.arguments import count
from benchmarks.machine import describe
from benchmarks.simulation.policies import MODEL, ONE_ROW, TOTAL
from benchmarks.simulation.world import World, cost_model, make_world
from benchmarks.table import percentile, render
from service.engine.deadline import Deadline
from service.engine.scheduler import Scheduler
from service.engine.ticket import Ticket

STEPS = 2000


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiting", type=count(), default=1000)
    options = parser.parse_args(arguments)
    world = make_world()
    print(f"### Scheduler with {options.waiting} requests waiting\n\n{describe()}\n")
    rows = []
    for largest in (1, 8, 64):
        microseconds, batch = _measure(world, options.waiting, largest)
        middle, high = percentile(microseconds, 0.5), percentile(microseconds, 0.99)
        rows.append((largest, f"{batch:.1f}", f"{middle:.1f}", f"{high:.1f}", f"{middle / batch:.1f}"))
    print(render(("max_batch_rows", "requests a step", "us a step p50", "p99", "us a request"), rows))


def _measure(world: World, waiting: int, largest: int) -> tuple[list[float], float]:
    """Microseconds of each step, and the mean batch; whoever settles is replaced, so that as many wait throughout."""
    profile, random = world.profile(), np.random.default_rng(0)
    engine = Scheduler(cost_model(MODEL), largest)
    microseconds, requests, now = [], 0, 0.0
    for _ in range(STEPS):
        while engine.waiting < waiting:
            due = now + random.uniform(1.0, 5.0)
            engine.admit(Ticket("", MODEL, ONE_ROW, Deadline(now, due, due, due), profile, TOTAL, TOTAL), now)
        begun = time.thread_time()
        step = engine.next_step(now)
        chosen = time.thread_time()
        if step is None:
            break
        now += 0.0005
        for ticket in step.tickets:
            ticket.depth = step.member + 1
            ticket.outlook = profile.after(ticket.depth, (random.uniform(0.5, 1.0),))
        resumed = time.thread_time()
        engine.complete(step.tickets, now)
        microseconds.append((time.thread_time() - resumed + chosen - begun) * 1e6)
        requests += len(step.tickets)
        engine.take_settled()
    return microseconds, requests / len(microseconds)


if __name__ == "__main__":
    main()
