"""How late answers are at light load, for deadlines from half of the first member to twice all members.

One request is under way at a time. Lateness is what the client sees: from before the request's first byte is
sent until the answer's last byte is read, minus the deadline; so the client's own time and the loopback count
against the server.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from benchmarks.arguments import count, number
from benchmarks.chain import pixels, write_chain
from benchmarks.ladder import Asked, deadlines_ms, prefix_ms
from benchmarks.machine import describe
from benchmarks.server import Reply, Wire, body, serving
from benchmarks.table import percentile, render

MEMBERS = 6
RUNGS = MEMBERS + 2


def measure(wire: Asked, inputs: npt.NDArray[Any], reserve_ms: float, requests: int) -> dict[float, list[Reply]]:
    """Send `requests` requests at deadlines in random order; replies by deadline in milliseconds.

    The deadlines are laid by how long this server takes for each prefix: the shortest is half of the first member's
    time, the longest twice that of all members and the reserve.
    """
    deadlines = deadlines_ms(prefix_ms(wire, inputs, MEMBERS), reserve_ms)
    bodies = {deadline: body(inputs, deadline_ms=deadline) for deadline in deadlines}
    replies: dict[float, list[Reply]] = {deadline: [] for deadline in deadlines}
    order = [deadlines[index % len(deadlines)] for index in range(requests)]
    random.Random(0).shuffle(order)
    for deadline in order:
        replies[deadline].append(wire.predict(bodies[deadline]))
    return replies


def summarise(replies: dict[float, list[Reply]]) -> str:
    """The table."""
    rows = []
    for deadline, all_replies in replies.items():
        answered = [reply for reply in all_replies if reply.status == 200]
        late_ms = [reply.seconds * 1e3 - deadline for reply in all_replies]
        used = [reply.document["members_used"] for reply in answered]
        rows.append(
            (
                f"{deadline:g}",
                len(all_replies),
                f"{100 * len(answered) / len(all_replies):.1f} %",
                f"{sum(used) / len(used):.2f}" if used else "-",
                f"{100 * sum(late <= 0 for late in late_ms) / len(late_ms):.2f} %",
                *(f"{percentile(late_ms, share):+.2f}" for share in (0.5, 0.99, 0.999, 1.0)),
            )
        )
    header = ("deadline ms", "requests", "answered", "members", "in time", "late p50", "p99", "p99.9", "worst ms")
    return render(header, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=count(RUNGS), default=1000 * RUNGS)
    parser.add_argument("--reserve-ms", type=number(0), default=2.0)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        write_chain(Path(folder), MEMBERS)
        with serving(Path(folder), reserve_ms=options.reserve_ms) as server:
            wire = Wire(server.address)
            medians = [member["median_ms"] for member in wire.get("/models")["models"][0]["members"]]
            replies = measure(wire, pixels(1), options.reserve_ms, options.requests)
            wire.close()
    print(f"### Lateness beyond the deadline\n\n{describe()}\n")
    print(f"Six CIFAR-sized members of {', '.join(f'{median:.2f}' for median in medians)} ms; ", end="")
    print(f"one request at a time; reserve {options.reserve_ms:g} ms; negative is early.\n")
    print(summarise(replies))


if __name__ == "__main__":
    main()
