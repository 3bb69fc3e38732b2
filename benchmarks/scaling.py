"""`python -m benchmarks.scaling`: training time and memory against samples N, labels L and rounds T.

Each point is the rounds of Algorithm 1 in a process of its own, one candidate a round, on random data: CPU time, and
the growth of the largest resident size. A straight line is laid through each axis by least squares.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import describe
from benchmarks.table import render
from training import Config, Data, FullyConnected, Logits, Split
from training.bdistil import run_rounds
from training.checkpoint import Checkpoint
from training.determinism import repeatable
from training.pipeline import game_of
from training.progress import Quiet

FEATURES, WIDTHS = 32, (64, 64)
HELD_OUT = 1000
"""Samples of the validation and of the test part."""
BYTES_PER_UNIT = 1 if sys.platform == "darwin" else 1024
"""What `ru_maxrss` counts in."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of one run."""

    N: int = 20_000
    L: int = 10
    T: int = 3


@dataclass(frozen=True, slots=True)
class Spent:
    """By one run."""

    seconds: float
    megabytes: float


@dataclass(frozen=True, slots=True)
class Line:
    """``y = intercept + slope x`` by least squares, and the share of the variance that it explains."""

    slope: float
    intercept: float
    r2: float


AXES: dict[str, tuple[int, ...]] = {
    "N": (20_000, 40_000, 60_000, 80_000, 100_000),
    "L": (100, 200, 300, 400, 500),
    "T": (2, 4, 6, 8, 10),
}
"""What is varied; the other two stay as in :class:`Size`."""


def measure(size: Size) -> Spent:
    """Run the rounds here; the process must be a fresh one, because its peak is read."""
    with tempfile.TemporaryDirectory() as folder, repeatable(threads=1):
        train(Size(N=2 * HELD_OUT, T=2), Path(folder) / "warm")  # what torch loads at its first step is no slope
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        train(size, Path(folder) / "run")
        seconds, after = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Spent(seconds, (after - before) * BYTES_PER_UNIT / 1e6)


def train(size: Size, folder: Path) -> None:
    """Algorithm 1 with one candidate a round, each connected to the member before it."""
    random = np.random.default_rng(0)
    parts, logits = {}, {}
    for name, samples in (("train", size.N), ("validation", HELD_OUT), ("test", HELD_OUT)):
        x = random.standard_normal((samples, FEATURES), dtype=np.float32)
        logits[name] = x @ random.standard_normal((FEATURES, size.L), dtype=np.float32)
        parts[name] = Split(x, logits[name].argmax(axis=1))
    data = Data(
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        classes=tuple(map(str, range(size.L))),
    )
    config = Config(
        name="scaling",
        threads=1,
        rounds=size.T,
        epochs=1,
        batch_size=500,
        connection="residual",
        first_expansion=1,
        max_search=1,
        eta_rule="scaled",
        bound_factor=100,
        on_failure="best",
    )
    classes = [FullyConnected(widths=WIDTHS)]
    outcome = run_rounds(game_of(Logits(**logits), data, classes, config, Checkpoint(folder, "scaling"), Quiet()))
    if len(outcome.ensemble) != size.T:
        raise RuntimeError(f"{size} found {len(outcome.ensemble)} members: the rounds would not be of one cost.")


def fit(x: Sequence[float], y: Sequence[float]) -> Line:
    """The straight line through the points."""
    slope, intercept = np.polyfit(x, y, 1)
    residual = np.asarray(y) - (intercept + slope * np.asarray(x))
    return Line(float(slope), float(intercept), 1 - float(residual.var() / np.var(y)))


def main(arguments: Sequence[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__).parse_args(arguments)
    context = multiprocessing.get_context("spawn")
    points, lines = list[Sequence[object]](), list[Sequence[object]]()
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
        for axis, values in AXES.items():
            sizes = [replace(Size(), **{axis: value}) for value in values]
            spent = list(pool.map(measure, sizes))
            points += [
                (axis, value, f"{one.seconds:.2f}", f"{one.megabytes:.1f}")
                for value, one in zip(values, spent, strict=True)
            ]
            for unit, y in (("s", [one.seconds for one in spent]), ("MB", [one.megabytes for one in spent])):
                line = fit(values, y)
                per = 1000 if axis == "N" else 1
                slope = f"{line.slope * per:.4g} {unit} per {'1000 ' if per > 1 else ''}{axis}"
                lines.append((axis, "CPU time" if unit == "s" else "memory", slope, f"{line.r2:.4f}"))
    print(f"{describe()}; torch {torch.__version__}, one thread\n")
    base = Size()
    print(f"one axis varied, the others at N = {base.N}, L = {base.L}, T = {base.T}\n")
    print(render(("axis", "size", "CPU time s", "memory MB"), points), end="\n\n")
    print(render(("axis", "of", "slope", "R^2"), lines))


if __name__ == "__main__":
    main()
