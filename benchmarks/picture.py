"""Accuracy against deadline of a running server, on the bundle in `models`; `--picture` draws what the README shows."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

from benchmarks.arguments import count
from benchmarks.demo import RESERVE_MS, ROWS
from benchmarks.ladder import Rung, climb, deadlines_ms, prefix_ms, summarise
from benchmarks.machine import describe
from benchmarks.repository import MODELS
from benchmarks.server import Wire, serving
from bundle import Manifest, open_bundle
from training.data import digits

mpl.use("Agg")
from matplotlib import pyplot as plt


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=count(), default=100)
    parser.add_argument("--picture", type=Path, help="where to draw it")
    options = parser.parse_args(arguments)
    manifest = open_bundle(MODELS, "digits").manifest
    held_out = digits.load(manifest.training.seed if manifest.training else 0).test
    with serving(MODELS, models="digits", max_rows=ROWS, max_batch_rows=ROWS, reserve_ms=RESERVE_MS) as server:
        wire = Wire(server.address)
        rungs_ms = deadlines_ms(prefix_ms(wire, held_out.x, len(manifest.members)), RESERVE_MS)
        rungs = climb(wire, held_out.x, np.asarray(held_out.y), rungs_ms, options.requests)
        wire.close()
    print(f"### Accuracy against deadline\n\n{describe()}\n")
    print(f"{options.requests} requests of all {len(held_out)} held-out digits at each deadline.\n")
    print(summarise(rungs))
    if options.picture:
        _draw(options.picture, rungs, manifest, len(held_out))


def _draw(path: Path, rungs: list[Rung], manifest: Manifest, samples: int) -> None:
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    answered = [rung for rung in rungs if rung.accuracy is not None]
    x = [rung.deadline_ms for rung in answered]
    y = [100 * (rung.accuracy or 0) for rung in answered]
    axes.axhline(100 * manifest.teacher.quality, color="0.5", linestyle="--", label="teacher")
    axes.plot(x, y, marker="o", color="tab:blue", label="served ensemble")
    labelled = 0.0
    for rung, left, up in zip(answered, x, y, strict=True):
        share = len(rung.answered) / len(rung.replies)
        text = f"{rung.members:.1f} members" + (f", {100 * share:.0f} % answered" if share < 0.99 else "")
        # On the plateau labels would lie on each other, and say the same.
        members = rung.members or 0.0
        if members >= labelled + 0.2:
            axes.annotate(text, (left, up), (8, -12), textcoords="offset points", fontsize=8)
            labelled = members
    refused = [rung.deadline_ms for rung in rungs if not rung.answered]
    if refused:
        axes.axvspan(0, max(refused), color="tab:red", alpha=0.1, linewidth=0, label="too short: 504 at once")
    axes.set(xlabel="deadline_ms of the request", ylabel="accuracy of the answers, %", xlim=(0, 1.18 * max(x)))
    axes.set_title(f"{manifest.name}: {samples} held-out samples a request, mean members in the answer", fontsize=10)
    axes.margins(y=0.1)
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    figure.text(0.01, -0.03, describe(), fontsize=6, color="0.4")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, bbox_inches="tight", metadata={"Software": None})


if __name__ == "__main__":
    main()
