"""`make demo`: train on real digits, serve the result, and show what each deadline buys.

Leaves the server running until Ctrl-C; DEMO_EXIT=1 ends it after the table.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.ladder import climb, deadlines_ms, prefix_ms, summarise
from benchmarks.machine import describe
from benchmarks.server import ServerDied, Wire, serving
from bundle import open_bundle
from training.data import Split, digits

MODELS = Path("build/demo")
"""Not the repository's `models`: a demonstration must not change what is committed."""
PORT = 8000
ROWS = 1024
RESERVE_MS = 2.0
REQUESTS = 50


def main() -> int:
    console = Console()
    console.rule("1. train-ensemble digits")
    train = [sys.executable, "-m", "training.cli", "digits", "--models", str(MODELS)]
    trained = subprocess.run(train, check=False).returncode
    if trained:
        return trained
    console.rule("2. serve-ensemble")
    try:
        with serving(MODELS, port=PORT, max_rows=ROWS, max_batch_rows=ROWS, reserve_ms=RESERVE_MS) as server:
            address = server.address
            console.print(f"ready at {address} (documentation: {address}/docs, metrics: {address}/metrics)")
            console.rule("3. the same samples at shorter and longer deadlines")
            _show(console, address)
            if os.environ.get("DEMO_EXIT") != "1":
                _linger(console, address)
    except ServerDied as error:
        console.print(f"The server did not start; is port {PORT} taken? Its last words:\n{error}", markup=False)
        return 1
    return 0


def _show(console: Console, address: str) -> None:
    bundle = open_bundle(MODELS, "digits")
    training = bundle.manifest.training
    held_out: Split = digits.load(training.seed if training else 0).test
    wire = Wire(address)
    prefixes = prefix_ms(wire, held_out.x, len(bundle.manifest.members))
    deadlines = deadlines_ms(prefixes, RESERVE_MS)

    def bar(steps: Iterator[float]) -> Iterator[float]:
        yield from track(steps, "predicting", total=REQUESTS * len(deadlines), console=console, transient=True)

    rungs = climb(wire, held_out.x, np.asarray(held_out.y), deadlines, REQUESTS, bar)
    wire.close()
    console.print(f"{describe()}\n{REQUESTS} requests of all {len(held_out)} held-out digits at each deadline:\n")
    console.print(summarise(rungs), markup=False, highlight=False, soft_wrap=True)


def _linger(console: Console, address: str) -> None:
    console.print(
        f"\nThe server runs until Ctrl-C. Try:\n  curl -s {address}/models\n"
        f"  curl -s {address}/metrics | grep anytime_deadlines_total"
    )
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        console.print("stopping")


if __name__ == "__main__":
    sys.exit(main())
