"""Timely accuracy against load on a virtual clock: the service's scheduler, static choices, a bound for all.

Timely accuracy is right answers in time over requests sent. `python -m benchmarks.simulate --requests 40000` sends
more than a million.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np

from benchmarks.arguments import count, number
from benchmarks.simulation.bound import clairvoyant
from benchmarks.simulation.policies import TOTAL, Trace, make_trace, ours, timely_accuracy
from benchmarks.simulation.static import CHOICES, TEACHER, best_by_budget, greedy_depth, static
from benchmarks.simulation.traffic import SHAPES, arrivals
from benchmarks.simulation.world import DEADLINES_S, MEMBER_S, World, make_world
from benchmarks.table import render

mpl.use("Agg")
from matplotlib import pyplot as plt

LOADS = (0.1, 0.3, 0.5, 0.8, 1.2, 2.0, 3.0, 5.0, 10.0)
"""Times the rate at which the device could run all members for everybody, one row at a time."""

EXIT = 0.98
"""Confidence at which requests leave early in a column of its own."""


@dataclass(frozen=True, slots=True)
class Point:
    """One trace and what each policy made of it."""

    shape: str
    load: float
    bound: float
    ours: float
    exits: float
    """Ours, if all requests ask for `exit_confidence`."""
    others: dict[str, float]
    plan: tuple[str, ...]
    """The best static choice for each budget, ascending."""
    planned: float
    """With it."""
    microseconds_a_step: float

    @property
    def best(self) -> str:
        """The best static choice for everybody: a depth, or the teacher alone."""
        return max(CHOICES, key=self.others.__getitem__)

    @property
    def over_static(self) -> float:
        """Ours less the best static choice."""
        return self.ours - self.others[self.best]

    @property
    def over_plan(self) -> float:
        """Ours less the best static choice for each budget."""
        return self.ours - self.planned


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=count(100), default=2000, help="in each of the 27 traces")
    parser.add_argument(
        "--noise", type=number(0), default=0.0, metavar="SIGMA", help="of the durations of ours, lognormal"
    )
    parser.add_argument("--picture", type=Path, help="where to draw it")
    options = parser.parse_args(arguments)
    world = make_world()
    points = []
    for shape in SHAPES:
        for load in LOADS:
            points.append(_measure(world, shape, load, options.requests, options.noise))
            print(f"{shape} at {load:g}: {points[-1].ours:.4f} of {points[-1].bound:.4f}", flush=True)
    print(f"\n### Simulation of {len(points)} traces of about {options.requests} requests\n")
    if options.noise:
        print(f"Durations of ours with lognormal noise of {options.noise:g}, the cost model taught by each step.\n")
    print(summarise(points))
    gaps = [point.bound - point.ours for point in points]
    print(f"\nBelow the bound by {100 * np.mean(gaps):.2f} points on average, {100 * max(gaps):.2f} at most;")
    exits = np.mean([point.bound - point.exits for point in points])
    print(f"by {100 * exits:.2f} on average if requests leave at a confidence of {EXIT}.")
    print(f"Above the best static choice by {100 * min(point.over_static for point in points):.2f} points at least,")
    print(f"above the best for each deadline by {100 * min(point.over_plan for point in points):.2f} at least.")
    print(
        f"Scheduler: {np.median([point.microseconds_a_step for point in points]):.0f} us a step, median of the traces."
    )
    if options.picture:
        _draw(options.picture, points)


def _measure(world: World, shape: str, load: float, requests: int, noise: float) -> Point:
    random = np.random.default_rng(1)
    arrived = arrivals(shape, load / sum(MEMBER_S), requests, random)
    trace = make_trace(world, arrived, random.choice(DEADLINES_S, len(arrived)), random)
    served = ours(world, trace, noise=noise)
    plan, planned = best_by_budget(trace)
    return Point(
        shape,
        load,
        bound=clairvoyant(world, trace),
        ours=timely_accuracy(trace, served),
        exits=timely_accuracy(trace, ours(world, trace, EXIT, noise)),
        others=_others(trace),
        plan=plan,
        planned=planned,
        microseconds_a_step=served.scheduling_s / served.steps * 1e6,
    )


def _others(trace: Trace) -> dict[str, float]:
    served = {name: static(trace, members) for name, members in CHOICES.items()}
    served["FIFO-full"] = static(trace, range(TOTAL), fifo=True)
    served["greedy-depth"] = greedy_depth(trace)
    return {name: timely_accuracy(trace, one) for name, one in served.items()}


def summarise(points: list[Point]) -> str:
    """The table, in percent; `depth 8` is EDF-full, `4/4/T` a depth for each deadline and the teacher alone."""
    columns = ("depth 1", "depth 2", "depth 4", "depth 7", "depth 8", TEACHER, "FIFO-full", "greedy-depth")
    return render(
        (
            "traffic",
            "load",
            "bound",
            "ours",
            f"exit at {EXIT}",
            "best static",
            "ours over it",
            "by deadline",
            "ours over it",
            *columns,
        ),
        (
            (
                point.shape,
                f"{point.load:g}",
                f"{100 * point.bound:.2f}",
                f"{100 * point.ours:.2f}",
                f"{100 * point.exits:.2f}",
                f"{point.best}: {100 * point.others[point.best]:.2f}",
                f"{100 * point.over_static:+.2f}",
                f"{'/'.join(map(_short, point.plan))}: {100 * point.planned:.2f}",
                f"{100 * point.over_plan:+.2f}",
                *(f"{100 * point.others[name]:.2f}" for name in columns),
            )
            for point in points
        ),
    )


def _short(choice: str) -> str:
    return "T" if choice == TEACHER else choice.removeprefix("depth ")


def _draw(path: Path, points: list[Point]) -> None:
    figure, row = plt.subplots(1, len(SHAPES), figsize=(13, 4.5), sharey=True, layout="constrained")
    for axes, shape in zip(row, SHAPES, strict=True):
        here = [point for point in points if point.shape == shape]
        loads = [point.load for point in here]
        for name in ("depth 1", "depth 4", "depth 7", TEACHER, "greedy-depth"):
            axes.plot(loads, [100 * point.others[name] for point in here], linewidth=1, marker=".", label=name)
        axes.plot(loads, [100 * point.bound for point in here], color="0.4", linestyle="--", label="clairvoyant bound")
        axes.plot(loads, [100 * point.ours for point in here], color="black", linewidth=2, marker="o", label="ours")
        axes.set(xscale="log", xlabel="load, times full-ensemble capacity", title=shape, ylim=(60, 98))
        axes.grid(alpha=0.3)
    row[0].set_ylabel("right answers in time, % of requests")
    row[0].legend(loc="lower left", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
