"""Members side by side against one after another: time to full depth of six members that do not read each other.

One server for each setting of ANYTIME_EXECUTION, all with as many threads; each request goes to all of them in turn.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.arguments import count
from benchmarks.chain import pixels, write_chain
from benchmarks.machine import describe
from benchmarks.server import Wire, body, serving
from benchmarks.table import percentile, render

SETTINGS = ("sequential", "parallel", "auto")
SIZES = {1: 600, 8: 300}
"""Requests to each server, by rows."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=count(), default=os.cpu_count(), help="threads of the members")
    options = parser.parse_args(arguments)
    print(f"### Members side by side\n\n{describe()}\n")
    with _servers(options.threads) as wires:
        execution = {name: wire.get("/models/chain")["execution"] for name, wire in wires.items()}
        rows = [line for size, requests in SIZES.items() for line in _compare(wires, size, requests)]
    print(
        f"Six CIFAR-sized members without connections, {options.threads} threads, no deadline; "
        f"{', '.join(f'{requests} requests of {size} rows' for size, requests in SIZES.items())} to each server, "
        "in turns; milliseconds; ratios to `sequential` are medians over the turns, and of p99.\n"
    )
    print(render(("rows", "execution", "p50", "p99", "ratio", "ratio of p99", "steps a request"), rows))
    print(f"\nAt warm-up `auto` measured, for members 1 to 5 ({execution['auto']['reason']})\n")
    print(heats(execution["auto"]["waves"], "side by side"))


@contextmanager
def _servers(threads: int) -> Iterator[dict[str, Wire]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_chain(folder, connected=False)
        wires = {}
        for name in SETTINGS:
            server = stack.enter_context(serving(folder, cpu_threads=threads, execution=name, max_batch_rows=8))
            wires[name] = Wire(server.address)
            stack.callback(wires[name].close)
        yield wires


def _compare(wires: dict[str, Wire], rows: int, requests: int) -> list[tuple[str, ...]]:
    request = body(pixels(rows))
    times: dict[str, list[float]] = {name: [] for name in wires}
    before = {name: steps_run(wire) for name, wire in wires.items()}
    for turn in range(requests):
        # Who goes first changes, lest one always follows the same neighbour.
        for name in (SETTINGS * 2)[turn % 3 : turn % 3 + 3]:
            reply = wires[name].predict(request)
            assert reply.document["members_used"] == 6, reply.document
            times[name].append(reply.seconds * 1e3)
    base = times["sequential"]
    return [
        (
            str(rows),
            name,
            f"{percentile(own, 0.5):.2f}",
            f"{percentile(own, 0.99):.2f}",
            f"{percentile([one / other for one, other in zip(own, base, strict=True)], 0.5):.3f}",
            f"{percentile(own, 0.99) / percentile(base, 0.99):.3f}",
            f"{(steps_run(wires[name]) - before[name]) / requests:.2f}",
        )
        for name, own in times.items()
    ]


def steps_run(wire: Wire) -> float:
    """Steps that a server has run: six a request one by one, two where all that may be are side by side."""
    counts = re.findall(r"^anytime_member_duration_seconds_count{.*} (.+)$", wire.get_text("/metrics"), re.MULTILINE)
    return sum(map(float, counts))


def heats(found: list[dict[str, Any]], how: str) -> str:
    """What warm-up measured of the waves or groups of a model, run `how`: `side by side` or `in one go`."""
    rows = [
        (
            str(heat["rows"]),
            f"{heat['together_ms']:.3f}",
            f"{heat['one_by_one_ms']:.3f}",
            f"{heat['together_ms'] / heat['one_by_one_ms']:.3f}",
            "yes" if heat["used"] else "no",
        )
        for one in found
        for heat in one["heats"]
    ]
    return render(("rows", f"{how} ms", "one by one ms", "ratio", "used"), rows)


if __name__ == "__main__":
    main()
