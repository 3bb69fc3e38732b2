"""Minutes of mixed traffic: good, bad, late, labelled and hung-up requests, each answer held against the reference.

Ends with an error if an answer was wrong, a request got no answer, or something is left in flight.
"""

from __future__ import annotations

import argparse
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from benchmarks.arguments import number
from benchmarks.machine import describe
from benchmarks.repository import MODELS
from benchmarks.server import Running, Wire, body, serving
from benchmarks.table import percentile, render
from bundle import open_bundle
from bundle.reference import running_average
from training.data import digits

CLIENTS = 3
PAUSE_S = 0.01
"""Mean pause of a client between two requests: load without saturation."""


@dataclass
class Tally:
    """What one client has seen."""

    outcomes: Counter[str] = field(default_factory=Counter)
    late_ms: list[float] = field(default_factory=list)
    wrong: int = 0


class Client(threading.Thread):
    """Sends random requests until it is stopped."""

    def __init__(self, server: Running, inputs: npt.NDArray[Any], prefixes: list[npt.NDArray[Any]], seed: int) -> None:
        super().__init__(name=f"client-{seed}")
        self._server, self._inputs, self._prefixes = server, inputs, prefixes
        self._random = random.Random(seed)
        self._wire = Wire(server.address)
        self.tally = Tally()
        self.stopping = threading.Event()

    def run(self) -> None:
        """Until `stopping` is set."""
        actions = (self._deadline, self._whole, self._bad, self._hang_up, self._labelled)
        while not self.stopping.wait(self._random.expovariate(1 / PAUSE_S)):
            (action,) = self._random.choices(actions, weights=(70, 10, 5, 10, 5))
            try:
                self.tally.outcomes[action()] += 1
            except OSError as error:
                self.tally.outcomes[f"no answer: {error}"] += 1
                self._wire = Wire(self._server.address)

    def _rows(self) -> slice:
        count = self._random.choice((1, 1, 1, 4, 16, 64))
        start = self._random.randrange(len(self._inputs) - count)
        return slice(start, start + count)

    def _predict(self, **fields: object) -> tuple[str, dict[str, Any]]:
        rows = self._rows()
        reply = self._wire.predict(body(self._inputs[rows], outputs=["logits"], **fields))
        if reply.status == 200:
            got = [one["logits"] for one in reply.document["predictions"]]
            expected = self._prefixes[reply.document["members_used"] - 1][rows]
            self.tally.wrong += not np.allclose(got, expected, atol=1e-4)
        if "deadline_ms" in fields:
            self.tally.late_ms.append(reply.seconds * 1e3 - float(str(fields["deadline_ms"])))
        return f"{reply.status} {reply.document.get('stopped_by', reply.document.get('code'))}", reply.document

    def _deadline(self) -> str:
        return self._predict(deadline_ms=round(self._random.uniform(1.0, 25.0), 2))[0]

    def _whole(self) -> str:
        return self._predict()[0]

    def _bad(self) -> str:
        content = self._random.choice((b"{", b'{"inputs": [[1]]}', b'{"inputs": [], "deadline_ms": -1}'))
        return f"{self._wire.predict(content).status} on purpose"

    def _hang_up(self) -> str:
        address = urlsplit(self._server.address)
        content = body(self._inputs[self._rows()])
        with socket.create_connection((address.hostname or "", address.port or 0)) as wire:
            wire.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(content) + content)
        return "hung up on purpose"

    def _labelled(self) -> str:
        outcome, document = self._predict()
        if "predictions" not in document:
            return outcome
        labels = [one["index"] for one in document["predictions"]]
        told = httpx.post(
            f"{self._server.address}/feedback", json={"request_id": document["request_id"], "labels": labels}
        )
        return f"{told.status_code} feedback"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=number(0.5), default=10)
    options = parser.parse_args(arguments)
    bundle = open_bundle(MODELS, "digits")
    inputs = digits.load(0).test.x
    prefixes = list(running_average(bundle, inputs))
    console = Console(stderr=True)
    with serving(MODELS, models="digits") as server:
        clients = [Client(server, inputs, prefixes, seed) for seed in range(CLIENTS)]
        for client in clients:
            client.start()
        memory = []
        for _ in track(range(int(options.minutes * 6)), "soaking", console=console):
            time.sleep(10)
            memory.append(server.resident_mib())
        for client in clients:
            client.stopping.set()
            client.join()
        left = _left_in_flight(server)
    return _report([client.tally for client in clients], memory, left, options.minutes)


def _left_in_flight(server: Running) -> float:
    lines = httpx.get(f"{server.address}/metrics").text.splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("anytime_rows_in_flight "))


def _report(tallies: list[Tally], memory: list[float], left: float, minutes: float) -> int:
    outcomes = sum((tally.outcomes for tally in tallies), Counter[str]())
    late_ms = [late for tally in tallies for late in tally.late_ms]
    wrong = sum(tally.wrong for tally in tallies)
    print(f"### Soak of {minutes:g} minutes\n\n{describe()}\n")
    print(render(("outcome", "requests"), sorted(outcomes.items())))
    print(f"\nWrong answers: {wrong}. Rows left in flight: {left:g}.")
    in_time = np.mean([late <= 0 for late in late_ms])
    print(
        f"{len(late_ms)} requests with a deadline, seen by {CLIENTS} clients: {100 * in_time:.2f} % in time, "
        f"late p50 {percentile(late_ms, 0.5):+.2f}, p99 {percentile(late_ms, 0.99):+.2f}, worst {max(late_ms):+.2f} ms."
    )
    print(f"Memory after 10 s, half, end: {memory[0]:.1f}, {memory[len(memory) // 2]:.1f}, {memory[-1]:.1f} MiB.")
    failed = any(outcome.startswith(("500", "no answer")) for outcome in outcomes)
    return 1 if wrong or left or failed else 0


if __name__ == "__main__":
    sys.exit(main())
