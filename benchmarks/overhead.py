"""What the service adds to the bare onnxruntime loop, request by request, in turn.

The bare loop runs the same six members in this process, numpy in and out, one session a member: the least that
any server of this bundle must do.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from benchmarks.arguments import count
from benchmarks.chain import pixels, write_chain
from benchmarks.machine import describe
from benchmarks.server import Wire, body, serving
from benchmarks.table import percentile, render
from bundle import Bundle


class BareLoop:
    """The members one after the other, without deadline, batch or HTTP."""

    def __init__(self, bundle: Bundle) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._sessions = [
            ort.InferenceSession(bundle.graph(index), options, providers=["CPUExecutionProvider"])
            for index in range(len(bundle.manifest.members))
        ]

    def run(self, inputs: npt.NDArray[np.uint8]) -> float:
        """Seconds for all members."""
        started = time.perf_counter()
        feed: dict[str, npt.NDArray[Any]] = {"x": inputs}
        for session in self._sessions:
            _, activation = session.run(["logits", "activation"], feed)
            feed = {"x": inputs, "previous": activation}
        return time.perf_counter() - started


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=count(), default=500)
    options = parser.parse_args(arguments)
    rows_of_table = []
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_chain(Path(folder))
        bare = BareLoop(bundle)
        with serving(Path(folder), cpu_threads=1) as server:
            for rows in (1, 8):
                rows_of_table.append(_compare(bare, server.address, rows, options.requests))
    print(f"### Overhead per request\n\n{describe()}\n")
    print(
        f"All six members without a deadline, {options.requests} requests in turn with the bare loop; "
        "JSON in and out; milliseconds.\n"
    )
    header = ("rows", "bare p50", "p99", "service p50", "p99", "added p50", "ratio p50")
    print(render(header, rows_of_table))


def _compare(bare: BareLoop, address: str, rows: int, requests: int) -> tuple[str, ...]:
    inputs = pixels(rows)
    wire, request = Wire(address), body(inputs)
    loop, served, added, ratios = [], [], [], []
    for _ in range(requests):
        loop.append(bare.run(inputs) * 1e3)
        served.append(wire.predict(request).seconds * 1e3)
        added.append(served[-1] - loop[-1])
        ratios.append(served[-1] / loop[-1])
    wire.close()
    figures = [percentile(values, share) for values in (loop, served) for share in (0.5, 0.99)]
    return (
        str(rows),
        *(f"{figure:.2f}" for figure in figures),
        f"{percentile(added, 0.5):.2f}",
        f"{percentile(ratios, 0.5):.3f}",
    )


if __name__ == "__main__":
    main()
