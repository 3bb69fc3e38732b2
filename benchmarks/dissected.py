"""The service in a process that says where its time goes, or leaves a part of its work to others.

    python -m benchmarks.dissected VARIANT FOLDER      set up by ANYTIME_*, as `serve-ensemble` is

whole: the service. decoded: the body of the first request stands for those of all that follow, which may be empty.
engine: whatever comes over the Unix socket FOLDER/engine is answered from it too, without HTTP.
FOLDER/stages holds the CPU seconds of each stage so far, FOLDER/samples the samples of `engine`.
"""

from __future__ import annotations

import asyncio
import mmap
import struct
import sys
import time
from collections.abc import Callable, MutableSequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import uvloop
from starlette.requests import Request

import service.npy
import service.routes.answering
import service.routes.predict
from service.__main__ import SWITCH_INTERVAL_S
from service.app import create_app
from service.connection import Connection
from service.context import Context
from service.ingress import Visit
from service.logs import configure_logging
from service.routes.answering import admit
from service.schemas import Knobs
from service.server import Server, listen
from service.settings import Settings

STAGES = ("parse", "convert", "admit", "encode")
"""`convert` is a part of `admit`."""
MESSAGE = struct.Struct("<Id")
"""Slot of the samples, and the deadline on the monotonic clock; 0: send it back as it is, for timing."""
REPLY = struct.Struct("<II")
"""Slot, members used; then the logits of one row."""


def main() -> None:
    variant, folder = sys.argv[1], Path(sys.argv[2])
    settings = Settings()
    configure_logging(settings)
    app = create_app(settings)
    context: Context = app.state.context
    _time_stages(cast(MutableSequence[float], shared(folder / "stages", len(STAGES)).cast("d")))
    if variant == "decoded":
        _decode_once()
    process = Server(app)
    sockets = listen(settings)
    sys.setswitchinterval(SWITCH_INTERVAL_S)

    async def serve() -> None:
        if variant != "engine":
            await process.serve(sockets)
            return
        samples = np.asarray(shared(folder / "samples")).view(np.float32)
        rows = samples.reshape(-1, *context.deployments.all()[0].manifest.input.shape)
        connection = partial(_Engine, context, rows)
        async with await asyncio.get_running_loop().create_unix_server(connection, folder / "engine"):
            await process.serve(sockets)

    uvloop.run(serve())


def shared(path: Path, numbers: int = 0) -> memoryview:
    """A file as memory that processes share; of so many float64 if it is new."""
    if numbers:
        path.write_bytes(bytes(8 * numbers))
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 0))


class _Engine(asyncio.Protocol):
    """One front-end's connection: a message names a slot of samples and a deadline, a reply holds the logits.

    The least that an engine process can do for requests that others have received, decoded, and will encode.
    """

    def __init__(self, context: Context, samples: npt.NDArray[np.float32]) -> None:
        self._context = context
        self._samples = samples
        self._connection = Connection()
        self._rest = b""
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.lost()

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        whole = len(data) - len(data) % MESSAGE.size
        self._rest = data[whole:]
        for slot, due in MESSAGE.iter_unpack(data[:whole]):
            if due:
                task = asyncio.ensure_future(self._answer(slot, due))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                self._reply(slot, 0, self._samples[slot, None, :10].copy())

    async def _answer(self, slot: int, due: float) -> None:
        context, now = self._context, self._context.clock.now()
        visit = Visit(f"slot-{slot}", now, {})
        asked = Knobs.model_construct(deadline_ms=(due - now) * 1e3)
        ticket, deployment = admit(asked, self._samples[slot, None].copy(), visit, context)
        with context.repository.lease(deployment):
            outcome = await context.gate.answer(ticket, context.worker, self._connection.watch, context.metrics)
        assert outcome.published is not None
        self._reply(slot, outcome.published.members, outcome.published.logits)
        context.answered(visit, context.clock.now())

    def _reply(self, slot: int, members: int, logits: npt.NDArray[np.float32]) -> None:
        self._transport.write(REPLY.pack(slot, members) + logits.tobytes())


def _time_stages(totals: MutableSequence[float]) -> None:
    """Wrap the functions that are a stage, where they are looked up."""
    places: tuple[tuple[int, Any, str], ...] = (
        (0, service.body, "parse"),
        (0, service.npy, "decode"),
        (1, service.routes.answering, "to_tensor"),
        (2, service.routes.predict, "admit"),
        (3, service.routes.predict, "close"),
        (3, service.routes.predict, "encode"),
        (3, service.routes.predict, "encode_array"),
    )
    for stage, module, name in places:
        setattr(module, name, _timed(getattr(module, name), totals, stage))


def _timed(function: Callable[..., Any], totals: MutableSequence[float], stage: int) -> Callable[..., Any]:
    def timed(*arguments: object) -> object:
        started = time.thread_time()
        try:
            return function(*arguments)
        finally:
            totals[stage] += time.thread_time() - started

    return timed


def _decode_once() -> None:
    """Let the first request from outside stand for all."""
    predict, answering = cast(Any, service.routes.predict), cast(Any, service.routes.answering)
    decode, convert = predict.read_predict, answering.to_tensor
    known: dict[str, Any] = {}

    async def decoded(request: Request) -> tuple[Knobs, object]:
        if "request" in known:
            await request.receive()
            return cast(tuple[Knobs, object], known["request"])
        read: tuple[Knobs, object] = await decode(request)
        # The service's own warm-up asks without a deadline.
        if read[0].deadline_ms is not None:
            known["request"] = read
        return read

    def converted(values: object, *others: object) -> npt.NDArray[Any]:
        if "request" not in known or values is not known["request"][1]:
            return cast(npt.NDArray[Any], convert(values, *others))
        if "tensor" not in known:
            known["tensor"] = convert(values, *others)
        return cast(npt.NDArray[Any], known["tensor"])

    predict.read_predict, answering.to_tensor = decoded, converted


if __name__ == "__main__":
    main()
