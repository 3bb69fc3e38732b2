"""What each prefix of a bundle is worth and costs here: measured again on its held-out split.

Only FLOPs are the manifest's, and the accuracy beside the measured one. Likelihood and calibration error are with the
manifest's temperatures; agreement is with the bundle's last stage where that is the teacher.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.machine import describe
from benchmarks.repository import MODELS
from benchmarks.table import render
from bundle import Manifest, open_bundle
from bundle.reference import running_average
from service.engine.cpu import CpuExecutor
from service.engine.deadline import MonotonicClock
from service.engine.rehearsal import rehearse
from training.data import digits
from training.evaluate import scores

Array = npt.NDArray[Any]


def measure(manifest: Manifest, answers: Sequence[Array], y: Array) -> list[tuple[str, ...]]:
    """Accuracy, agreement, negative log-likelihood and calibration error of each prefix, as text.

    Args:
        manifest: of the bundle.
        answers: logits (N, L) of each prefix.
        y: labels (N,).
    """
    teacher = answers[-1].argmax(axis=1) if manifest.members[-1].combine == "replace" else None
    rows: list[tuple[str, ...]] = []
    for prefix, logits in zip(manifest.prefixes, answers, strict=True):
        named, believed = logits.argmax(axis=1), scores(logits / prefix.temperature, y)
        agreement = "-" if teacher is None else f"{100 * float(np.mean(named == teacher)):.2f} %"
        accuracy = f"{100 * float(np.mean(named == y)):.2f} %"
        rows.append((accuracy, agreement, f"{believed.nll:.3f}", f"{believed.ece:.3f}"))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=MODELS)
    options = parser.parse_args(arguments)
    bundle = open_bundle(options.models, "digits")
    manifest = bundle.manifest
    held_out = digits.load(manifest.training.seed if manifest.training else 0).test
    executor = CpuExecutor(threads=1)
    executor.load("digits", bundle)
    costs = rehearse(executor, "digits", len(manifest.members), 64, 0.95, MonotonicClock())
    answers = list(running_average(bundle, held_out.x))
    rows = [
        (
            k,
            f"{manifest.prefixes[k - 1].flops_fraction:.3f}",
            accuracy,
            f"{100 * manifest.prefixes[k - 1].quality:.2f} %",
            *rest,
            f"{sum(cost.curve(1) for cost in costs[:k]) * 1e3:.3f}",
            f"{sum(cost.curve(64) for cost in costs[:k]) * 1e3:.3f}",
        )
        for k, (accuracy, *rest) in enumerate(measure(manifest, answers, held_out.y), start=1)
    ]
    print(f"### Prefixes of {manifest.name}/{manifest.version}\n\n{describe()}\n")
    teacher = f"{100 * manifest.teacher.quality:.2f} %"
    print(f"{len(held_out)} held-out samples; teacher {teacher}; one CPU thread.\n")
    header = ("members", "FLOPs", "accuracy", "manifest", "agreement", "nll", "ece", "ms at 1 row", "ms at 64 rows")
    print(render(header, rows))


if __name__ == "__main__":
    main()
