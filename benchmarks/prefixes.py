"""What each prefix of a bundle is worth and costs here: measured again on its held-out split, not copied."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.machine import describe
from benchmarks.repository import MODELS
from benchmarks.table import render
from bundle import open_bundle
from bundle.reference import running_average
from service.engine.cpu import CpuExecutor
from service.engine.deadline import MonotonicClock
from service.engine.rehearsal import rehearse
from training.data import digits


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
    rows = []
    for k, logits in enumerate(running_average(bundle, held_out.x), start=1):
        prefix = manifest.prefixes[k - 1]
        rows.append(
            (
                k,
                f"{prefix.flops_fraction:.3f}",
                f"{100 * float(np.mean(logits.argmax(axis=1) == held_out.y)):.2f} %",
                f"{100 * prefix.quality:.2f} %",
                f"{100 * (prefix.agreement or 0):.2f} %",
                f"{prefix.nll:.3f}",
                f"{prefix.ece:.3f}",
                f"{sum(cost.curve(1) for cost in costs[:k]) * 1e3:.3f}",
                f"{sum(cost.curve(64) for cost in costs[:k]) * 1e3:.3f}",
            )
        )
    print(f"### Prefixes of {manifest.name}/{manifest.version}\n\n{describe()}\n")
    teacher = f"{100 * manifest.teacher.quality:.2f} %"
    print(f"{len(held_out)} held-out samples; teacher {teacher}; one CPU thread.\n")
    header = ("members", "FLOPs", "accuracy", "manifest", "agreement", "nll", "ece", "ms at 1 row", "ms at 64 rows")
    print(render(header, rows))


if __name__ == "__main__":
    main()
