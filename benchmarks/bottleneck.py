"""Where a request's CPU time goes in the server process, and what front-end processes could take off it.

One row a request, of the lightest model there is, so that the model hides nothing; a closed loop. Beside the service:
the same with bodies decoded beforehand, to which one hand-over between processes is added (what front-ends that decode
could give at most), and the engine by itself behind a Unix socket and shared memory (what front-ends that also speak
HTTP and encode could give at most, were they without cost).
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import uvloop

from benchmarks.arguments import count, number
from benchmarks.dense import CLASSES, write_dense
from benchmarks.dissected import MESSAGE, REPLY, STAGES, shared
from benchmarks.load import closed_loop, post
from benchmarks.machine import describe
from benchmarks.server import Running, Wire, body, serving
from benchmarks.table import percentile, render
from service import npy

DEADLINE_MS = 60_000
PAYS = 1.3
"""Times the throughput, with a core to spare, for which the processes and their hand-over are worth having."""


@dataclass(frozen=True)
class Reading:
    """CPU seconds that a server process has used."""

    loop: float
    """Of the thread with the event loop."""
    device: float
    """Of all other threads."""
    user: int
    """Ticks of the event loop's thread, outside of system calls."""
    system: int
    """Ticks of it within them."""
    stages: tuple[float, ...]

    @classmethod
    def of(cls, pid: int, stages: Sequence[float]) -> Reading:
        """What the process has used so far."""
        tasks = Path(f"/proc/{pid}/task")
        used = {task.name: int((task / "schedstat").read_text().split()[0]) / 1e9 for task in tasks.iterdir()}
        user, system = (
            int(ticks) for ticks in (tasks / str(pid) / "stat").read_text().rpartition(")")[2].split()[11:13]
        )
        return cls(used.pop(str(pid)), sum(used.values()), user, system, tuple(stages))


@dataclass(frozen=True)
class Cost:
    """Of one request, in microseconds of CPU."""

    rate: float
    """Requests a second."""
    decode: float
    admit: float
    encode: float
    kernel: float
    other: float
    """HTTP, framework, and waking up, on the event loop."""
    device: float

    @property
    def loop(self) -> float:
        """All of the event loop's."""
        return self.decode + self.admit + self.encode + self.kernel + self.other


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=number(0.01), default=1.0, help="of load, each time a server is asked")
    parser.add_argument("--rounds", type=count(), default=5)
    parser.add_argument("--values", nargs="+", type=count(), default=[64, 784, 3072], help="in a row")
    parser.add_argument("--connections", type=count(), default=16)
    options = parser.parse_args(arguments)
    print(f"### Where a request's time goes\n\n{describe()}\n")
    shares, bounds = [], []
    for values in options.values:
        with tempfile.TemporaryDirectory() as folder:
            for form, costs in _measure(Path(folder), values, options.connections, options.seconds, options.rounds):
                size = len(_body(values, form))
                shares.append((values, form, size, *_shares(costs["whole"])))
                bounds.append((values, form, *_bounds(costs)))
    print(
        f"One row a request, one small member, {options.connections} connections, closed loop, {options.rounds} rounds "
        f"of {options.seconds:g} s, medians. Microseconds of CPU a request; the shares are of the event loop's.\n"
    )
    header = ("values", "body", "bytes", "decode", "admit", "encode", "HTTP etc.", "socket", "loop", "device")
    print(render((*header, "decode share"), shares))
    print("\nRequests a second, and what front-ends could make of them at most:\n")
    columns = ("values", "body", "service", "decoded before", "hand-over µs", "bound", "bound x", "pays")
    print(render((*columns, "engine alone", "engine x", "its µs", "front-end alone"), bounds))
    print(
        f"\n`bound`: decoding moved to front-ends, and one hand-over for each request; it pays above {PAYS:g}. "
        "`engine alone`: HTTP and encoding moved too, and front-ends without cost; `its µs`: CPU of its event loop and "
        "its device thread. `front-end alone`: what one front-end with a core of its own could take, by its CPU."
    )


def _measure(
    folder: Path, values: int, connections: int, seconds: float, rounds: int
) -> list[tuple[str, dict[str, Cost]]]:
    """The costs of each variant, for each form of the body; the variants in turn."""
    write_dense(folder / "models", values)
    samples = _samples(values, connections)
    costs: dict[tuple[str, str], list[Cost]] = {}
    for variant in ("whole", "decoded", "engine"):
        (folder / variant).mkdir()
    (folder / "engine" / "samples").write_bytes(samples.tobytes())
    module = "benchmarks.dissected"

    def server(variant: str) -> Running:
        return stack.enter_context(serving(folder / "models", (module, variant, str(folder / variant)), device="cpu"))

    with ExitStack() as stack:
        servers = {variant: server(variant) for variant in ("whole", "decoded", "engine")}
        stages = {variant: shared(folder / variant / "stages").cast("d") for variant in servers}
        first = Wire(servers["decoded"].address)
        first.predict(_body(values, "json"))
        first.close()
        loads: dict[tuple[str, str], Callable[[], int]] = {}
        for form in ("json", "npy"):
            loads["whole", form] = _http(servers["whole"], _request(values, form), connections, seconds)
            empty = post("/predict", b"{}", **_headers(form))
            loads["decoded", form] = _http(servers["decoded"], empty, connections, seconds)
        socket = str(folder / "engine" / "engine")
        loads["engine", ""] = lambda: uvloop.run(_ask(socket, samples, seconds, echo=False))
        loads["hand-over", ""] = lambda: uvloop.run(_ask(socket, samples, seconds, echo=True))
        for round_ in range(rounds + 1):
            for (variant, form), load in loads.items():
                name = "engine" if variant == "hand-over" else variant
                cost = _cost(load, servers[name], stages[name])
                if round_:
                    costs.setdefault((variant, form), []).append(cost)
    typical = {key: _median(found) for key, found in costs.items()}
    return [
        (form, {variant: cost for (variant, of), cost in typical.items() if of in (form, "")})
        for form in ("json", "npy")
    ]


def _http(server: Running, request: bytes, connections: int, seconds: float) -> Callable[[], int]:
    return lambda: len(closed_loop(server.address, request, connections, seconds).latencies_s)


def _cost(load: Callable[[], int], server: Running, stages: Sequence[float]) -> Cost:
    """Of each request of a load."""
    before, started = Reading.of(server.pid, stages), time.perf_counter()
    requests = load()
    took, after = time.perf_counter() - started, Reading.of(server.pid, stages)
    return _parts(before, after, requests, took)


def _parts(before: Reading, after: Reading, requests: int, took: float) -> Cost:
    """What was used between two readings, by request; `took` seconds for all."""
    each = 1e6 / requests
    parse, convert, admit, encode = (
        (after.stages[index] - before.stages[index]) * each for index in range(len(STAGES))
    )
    loop = (after.loop - before.loop) * each
    decode, admit = parse + convert, admit - convert
    # The kernel counts these in ticks of 10 ms, too coarse for anything but a share.
    user, system = after.user - before.user, after.system - before.system
    kernel = system / max(1, user + system) * loop
    other = loop - decode - admit - encode - kernel
    return Cost(requests / took, decode, admit, encode, kernel, other, (after.device - before.device) * each)


def _median(costs: list[Cost]) -> Cost:
    names = Cost.__dataclass_fields__
    return Cost(**{name: percentile([getattr(cost, name) for cost in costs], 0.5) for name in names})


def _shares(cost: Cost) -> tuple[str, ...]:
    figures = (cost.decode, cost.admit, cost.encode, cost.other, cost.kernel, cost.loop, cost.device)
    return (*(f"{figure:.0f}" for figure in figures), f"{100 * cost.decode / cost.loop:.0f} %")


def _bounds(costs: dict[str, Cost]) -> tuple[str, ...]:
    whole, decoded, engine, handed = (costs[name] for name in ("whole", "decoded", "engine", "hand-over"))
    bound = 1 / (1 / decoded.rate + handed.loop / 1e6)
    ratio = bound / whole.rate
    front_end = 1e6 / (whole.loop - whole.admit + handed.loop)
    return (
        f"{whole.rate:.0f}",
        f"{decoded.rate:.0f}",
        f"{handed.loop:.1f}",
        f"{bound:.0f}",
        f"{ratio:.2f}",
        "yes" if ratio > PAYS else "no",
        f"{engine.rate:.0f}",
        f"{engine.rate / whole.rate:.2f}",
        f"{engine.loop:.0f} + {engine.device:.0f}",
        f"{front_end:.0f}",
    )


def _samples(values: int, rows: int = 1) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).random((rows, values), np.float32)


def _body(values: int, form: str) -> bytes:
    inputs = _samples(values)
    return npy.encode(inputs) if form == "npy" else body(inputs, deadline_ms=DEADLINE_MS)


def _headers(form: str) -> dict[str, str]:
    if form == "npy":
        return {"content_type": npy.MEDIA_TYPE, "accept": npy.MEDIA_TYPE}
    return {"content_type": "application/json"}


def _request(values: int, form: str) -> bytes:
    path = f"/predict?deadline_ms={DEADLINE_MS}" if form == "npy" else "/predict"
    return post(path, _body(values, form), **_headers(form))


async def _ask(socket: str, samples: npt.NDArray[np.float32], seconds: float, *, echo: bool) -> int:
    """Keep every slot under way for so long; the number of replies."""
    loop = asyncio.get_running_loop()
    _, front = await loop.create_unix_connection(lambda: _FrontEnd(samples, echo=echo), socket)
    front.begin()
    await asyncio.sleep(seconds)
    front.transport.abort()
    return front.replies


class _FrontEnd(asyncio.Protocol):
    """Stands for front-ends that have nothing else to do: each reply is followed by the next message."""

    def __init__(self, samples: npt.NDArray[np.float32], *, echo: bool) -> None:
        self._slots = len(samples)
        self._due = 0.0 if echo else time.monotonic() + DEADLINE_MS / 1e3
        self._rest = b""
        self._size = REPLY.size + 4 * CLASSES
        self.replies = 0
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def begin(self) -> None:
        self.transport.write(b"".join(MESSAGE.pack(slot, self._due) for slot in range(self._slots)))

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        whole = len(data) - len(data) % self._size
        self._rest = data[whole:]
        slots = [REPLY.unpack_from(data, start)[0] for start in range(0, whole, self._size)]
        self.replies += len(slots)
        self.transport.write(b"".join(MESSAGE.pack(slot, self._due) for slot in slots))


if __name__ == "__main__":
    main()
