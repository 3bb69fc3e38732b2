"""An open-loop client: requests leave when the schedule says, whatever became of those before.

A closed loop waits for answers, so a slow server is asked less and looks better than it is (coordinated omission).
Here latency counts from the scheduled moment. A client that is late itself asks for what is left of the deadline, as a
caller in a chain of services does, and how late it was is reported. The loop's own time is not used to measure: it is
that of the last turn of the loop, in whole milliseconds.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httptools
import numpy as np
import numpy.typing as npt
import uvloop

GIVE_UP_S = 1.0
"""How long after its deadline a request's client hangs up."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One request of a schedule."""

    at: float
    """Seconds after the start."""
    path: str
    compose: Callable[[float], bytes]
    """The JSON body, given how many milliseconds of the deadline are left when it is sent."""
    deadline_s: float
    """From `at`."""


@dataclass(frozen=True, slots=True)
class Hit:
    """What came of one shot."""

    status: int
    """0: the client hung up, or the server did."""
    content: bytes
    seconds: float
    """From the scheduled moment until the last byte was read."""
    sent_late_s: float
    """How late the client itself was."""


def poisson(rate: float, seconds: float, random: np.random.Generator, at_least: int = 0) -> npt.NDArray[np.float64]:
    """Arrival times of a Poisson process of `rate` a second, up to `seconds`, or until `at_least` have arrived."""
    gaps = random.exponential(1 / rate, size=max(16, at_least, int(2 * rate * seconds)))
    times = np.cumsum(gaps)
    return times[: max(at_least, int(np.searchsorted(times, seconds)))]


def bursts(
    rate: float, together: int, seconds: float, random: np.random.Generator, at_least: int = 0
) -> npt.NDArray[np.float64]:
    """Arrival times of `rate` a second that come `together` at an instant, the instants a Poisson process."""
    instants = poisson(rate / together, seconds, random, -(-at_least // together))
    return np.repeat(instants, together)


def fire(address: str, shots: Sequence[Shot]) -> list[Hit]:
    """Send the schedule, ascending in time; returns when every request was answered or given up."""
    gc.collect()
    gc.disable()  # a collection in the middle would make the client late
    try:
        return uvloop.run(_fire(address, shots))
    finally:
        gc.enable()


async def _fire(address: str, shots: Sequence[Shot]) -> list[Hit]:
    loop = asyncio.get_running_loop()
    pool = _Pool(address)
    lead_s = 0.05
    start, start_of_timers = time.monotonic() + lead_s, loop.time() + lead_s
    hits: list[asyncio.Future[Hit]] = [loop.create_future() for _ in shots]
    tasks = set[asyncio.Task[None]]()

    def launch(index: int) -> None:
        task = loop.create_task(_one(pool, shots[index], start, hits[index]))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    for index, shot in enumerate(shots):
        loop.call_at(start_of_timers + shot.at, launch, index)
    try:
        return list(await asyncio.gather(*hits))
    finally:
        pool.close()


async def _one(pool: _Pool, shot: Shot, start: float, hit: asyncio.Future[Hit]) -> None:
    scheduled = start + shot.at
    late = time.monotonic() - scheduled
    status, content = 0, b""
    left_s = shot.deadline_s - late
    try:
        async with asyncio.timeout(left_s + GIVE_UP_S):
            status, content = await pool.post(shot.path, shot.compose(left_s * 1e3))
    except (TimeoutError, OSError):
        pass
    hit.set_result(Hit(status, content, time.monotonic() - scheduled, late))


class _Pool:
    """Kept-alive connections; a new one whenever all are busy."""

    def __init__(self, address: str) -> None:
        target = urlsplit(address)
        self._host, self._port = target.hostname or "127.0.0.1", target.port or 80
        self._idle: list[_Exchange] = []

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer; a cancelled exchange closes its connection."""
        exchange = self._take() or await self._connect()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {self._host}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        try:
            answer = await exchange.send(head.encode() + body)
        except BaseException:
            exchange.close()
            raise
        if not exchange.closed:
            self._idle.append(exchange)
        return answer

    def close(self) -> None:
        for exchange in self._idle:
            exchange.close()

    def _take(self) -> _Exchange | None:
        while self._idle:
            exchange = self._idle.pop()
            if not exchange.closed:
                return exchange
        return None

    async def _connect(self) -> _Exchange:
        _, exchange = await asyncio.get_running_loop().create_connection(_Exchange, self._host, self._port)
        return exchange


class _Exchange(asyncio.Protocol):
    """One connection: a request, its answer, the next."""

    closed = False

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401
        self._transport = transport

    def send(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Write a request; the future holds its answer."""
        self._answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._parser, self._content = httptools.HttpResponseParser(self), bytearray()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._content += body

    def on_message_complete(self) -> None:
        self.closed = self.closed or not self._parser.should_keep_alive()
        if not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), bytes(self._content)))

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if hasattr(self, "_answer") and not self._answer.done():
            self._answer.set_exception(ConnectionError("the server closed the connection"))

    def close(self) -> None:
        """Close the connection."""
        self.closed = True
        self._transport.close()
