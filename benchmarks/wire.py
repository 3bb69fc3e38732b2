"""What the service costs beside servers without deadlines, on the same members, bodies and machine.

Each round asks every server in turn, in a new order, so that a noisy neighbour troubles all alike; what is compared
is the median of the rounds' ratios. The service's requests carry a deadline that is long enough for all members.
"""

from __future__ import annotations

import argparse
import random
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.arguments import count, number, program
from benchmarks.chain import pixels, write_chain
from benchmarks.load import Load, closed_loop, post, ratios
from benchmarks.machine import describe
from benchmarks.repository import MODELS
from benchmarks.server import ServerDied, body, serving
from benchmarks.table import percentile, render
from bundle import Bundle, open_bundle
from service import npy

RIVALS = Path(__file__).parent / "rivals"
CONNECTIONS = (1, 8, 64)
DEADLINE_MS = 60_000
ATTEMPTS = 300
"""To connect, 0.2 seconds apart, until a server is given up."""
MOSEC = ("mosec==0.9.8", "numpy", "onnxruntime", "orjson")


@dataclass(frozen=True)
class Contender:
    """A server under load."""

    name: str
    address: str
    request: Callable[[str], bytes]
    """Of a body form, `json` or `npy`."""


@dataclass(frozen=True)
class Case:
    """What is asked, and how."""

    title: str
    bundle: Bundle
    inputs: npt.NDArray[Any]
    members: int


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=number(0.01), default=1.0, help="of load, each time a server is asked")
    parser.add_argument("--rounds", type=count(), default=9)
    parser.add_argument("--bundles", nargs="+", default=["digits", "chain"], choices=["digits", "chain"])
    parser.add_argument("--connections", nargs="+", type=count(), default=list(CONNECTIONS))
    parser.add_argument("--mosec", type=program, help="python of an environment with mosec; made if it is not given")
    options = parser.parse_args(arguments)
    print(f"### Throughput beside servers without deadlines\n\n{describe()}\n")
    print(
        f"One row a request, closed loop, {options.rounds} rounds of {options.seconds:g} s, medians; "
        "the ratios are the service's throughput and p99 over the bare server's, round by round; p50 and p99 in ms.\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        mosec = options.mosec or _make_mosec(Path(folder) / "environment")
        rows = []
        for case in _cases(Path(folder) / "models", options.bundles):
            with _contenders(case, mosec) as contenders:
                for form in ("json", "npy"):
                    for connections in options.connections:
                        loads = _measure(contenders, form, connections, options.seconds, options.rounds)
                        rows.append((case.title, form, connections, *_figures(loads)))
                        print(rows[-1], file=sys.stderr)
    header = (
        "members",
        "body",
        "conns",
        "req/s",
        "p50",
        "p99",
        "bare",
        "p50",
        "p99",
        "rate x",
        "p99 x",
        "mosec",
        "p50",
        "p99",
    )
    print(render(header, rows))


def _cases(models: Path, bundles: list[str]) -> Iterator[Case]:
    digits = open_bundle(MODELS, "digits")
    chain = write_chain(models)
    known = {
        "digits": (digits, np.zeros((1, *digits.manifest.input.shape), digits.manifest.input.dtype)),
        "chain": (chain, pixels(1)),
    }
    for name in bundles:
        bundle, inputs = known[name]
        total = len(bundle.manifest.members)
        for members in (1, total):
            yield Case(f"{name}, {members} of {total}", bundle, inputs, members)


@contextmanager
def _contenders(case: Case, mosec: Path | None) -> Iterator[list[Contender]]:
    """The servers, all up: the service, the bare one, and mosec where it could be had."""
    folder, members = case.bundle.path, str(case.members)
    query = f"?deadline_ms={DEADLINE_MS}&max_members={members}"
    knobs = {"deadline_ms": DEADLINE_MS, "max_members": case.members}

    def ours(form: str) -> bytes:
        if form == "npy":
            content = npy.encode(case.inputs)
            return post(f"/predict{query}", content, content_type=npy.MEDIA_TYPE, accept=npy.MEDIA_TYPE)
        return post("/predict", body(case.inputs, **knobs), content_type="application/json")

    def theirs(form: str) -> bytes:
        if form == "npy":
            return post("/predict", npy.encode(case.inputs), content_type=npy.MEDIA_TYPE)
        return post("/predict", body(case.inputs), content_type="application/json")

    with ExitStack() as stack:
        service = stack.enter_context(serving(folder.parent.parent, models=case.bundle.manifest.name, device="cpu"))
        found = [Contender("service", service.address, ours)]
        bare = [sys.executable, "-m", "benchmarks.rivals.bare", str(folder), members]
        found.append(Contender("bare", stack.enter_context(_process(bare, "{}")), theirs))
        if mosec is not None:
            command = [str(mosec), "mosec_server.py", str(folder.resolve()), members, "--log-level", "error", "--port"]
            found.append(Contender("mosec", stack.enter_context(_process(command, "{}", RIVALS)), theirs))
        for one in found:
            _await(one)
        yield found


@contextmanager
def _process(command: list[str], port: str, folder: Path | None = None) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    with subprocess.Popen([*command, port.format(number)], cwd=folder, stderr=subprocess.DEVNULL) as process:
        try:
            yield f"http://127.0.0.1:{number}"
        finally:
            process.terminate()


def _await(one: Contender) -> None:
    """Return when it answers; also its warm-up."""
    for _ in range(ATTEMPTS):
        try:
            closed_loop(one.address, one.request("npy"), 1, 0.5)
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise ServerDied(f"{one.name} does not answer at {one.address}.")


def _measure(
    contenders: list[Contender], form: str, connections: int, seconds: float, rounds: int
) -> dict[str, list[Load]]:
    loads: dict[str, list[Load]] = {one.name: [] for one in contenders}
    shuffled = random.Random(0)
    for one in contenders:
        closed_loop(one.address, one.request(form), connections, seconds / 4)
    for _ in range(rounds):
        for one in shuffled.sample(contenders, len(contenders)):
            loads[one.name].append(closed_loop(one.address, one.request(form), connections, seconds))
    return loads


def _figures(loads: dict[str, list[Load]]) -> tuple[str, ...]:
    figures: list[str] = []
    for name in ("service", "bare", "mosec"):
        if name not in loads:
            figures += ["-"] * 3
            continue
        figures.append(f"{percentile([load.rate for load in loads[name]], 0.5):.0f}")
        for share in (0.5, 0.99):
            values = [percentile(load.latencies_s, share) * 1e3 for load in loads[name]]
            figures.append(f"{percentile(values, 0.5):.2f}")
    figures[6:6] = ratios(loads["service"], loads["bare"])
    return tuple(figures)


def _make_mosec(folder: Path) -> Path | None:
    """The interpreter of a new environment with mosec; None, and a sentence, if it cannot be made."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    made = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *MOSEC], capture_output=True, text=True, check=False
    )
    if made.returncode == 0:
        return python
    print(f"mosec could not be installed, so it is left out: {made.stderr.strip().splitlines()[-1]}\n")
    return None


if __name__ == "__main__":
    main()
