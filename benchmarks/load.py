"""A closed loop of kept-alive connections that costs the machine as little as it can."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast
from urllib.parse import urlsplit

import uvloop

from benchmarks.table import percentile


class BadReply(Exception):
    """A server answered with something else than 200."""


@dataclass(slots=True)
class Load:
    """What came back."""

    seconds: float
    latencies_s: list[float] = field(default_factory=list)
    last: bytes = b""
    """Body of one of the last replies."""

    @property
    def rate(self) -> float:
        """Replies a second."""
        return len(self.latencies_s) / self.seconds


def closed_loop(address: str, request: bytes, connections: int, seconds: float) -> Load:
    """Send the same bytes on so many connections, each again as soon as it is answered, for so long.

    The clock runs until the last of them is answered: a server that works on many requests at once would otherwise lose
    what it has done for those under way.

    Raises:
        BadReply: a reply was no 200.
    """
    return uvloop.run(_drive(address, request, connections, seconds))


def ratios(ours: Sequence[Load], theirs: Sequence[Load]) -> tuple[str, str]:
    """Throughput and p99 over those of another server, round by round: the medians."""
    pairs = list(zip(ours, theirs, strict=True))
    rates = [one.rate / other.rate for one, other in pairs]
    tails = [percentile(one.latencies_s, 0.99) / percentile(other.latencies_s, 0.99) for one, other in pairs]
    return f"{percentile(rates, 0.5):.2f}", f"{percentile(tails, 0.5):.2f}"


def post(path: str, body: bytes, **headers: str) -> bytes:
    """An HTTP/1.1 request."""
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _drive(address: str, request: bytes, connections: int, seconds: float) -> Load:
    loop = asyncio.get_running_loop()
    host, _, port = urlsplit(address).netloc.partition(":")
    load = Load(seconds)
    failed: asyncio.Future[None] = loop.create_future()
    wires = [_Wire(request, load, failed) for _ in range(connections)]
    for wire in wires:
        await loop.create_connection(partial(_itself, wire), host, int(port))
    started = time.perf_counter()
    for wire in wires:
        wire.begin()
    await asyncio.wait([failed], timeout=seconds)
    for wire in wires:
        wire.over = True
    for wire in wires:
        await asyncio.wait([failed, wire.idle], return_when=asyncio.FIRST_COMPLETED)
    load.seconds = time.perf_counter() - started
    for wire in wires:
        wire.transport.abort()
    if failed.done():
        failed.result()
    return load


def _itself(wire: _Wire) -> _Wire:
    return wire


class _Wire(asyncio.Protocol):
    """One connection: one request under way at a time."""

    def __init__(self, request: bytes, load: Load, failed: asyncio.Future[None]) -> None:
        self._request, self._load, self._failed = request, load, failed
        self._received = b""
        self._expected = 0
        self._sent = 0.0
        self.over = False
        """Whether no further request is to be sent."""
        self.idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when none is under way any more."""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have all of its methods, but are not of the class.
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.idle.done() and not self._failed.done():
            self._failed.set_exception(BadReply("The server has closed a connection."))

    def begin(self) -> None:
        self._received, self._expected = b"", 0
        self._sent = time.perf_counter()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._expected:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            self._expected = end + 4 + _content_length(self._received[:end])
        if len(self._received) < self._expected:
            return
        self._load.latencies_s.append(time.perf_counter() - self._sent)
        if not self._received.startswith(b"HTTP/1.1 200"):
            if not self._failed.done():
                self._failed.set_exception(BadReply(self._received[:500].decode(errors="replace")))
            return
        self._load.last = self._received.partition(b"\r\n\r\n")[2]
        if self.over:
            self.idle.set_result(None)
        else:
            self.begin()


def _content_length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.split(b"\r\n", 1)[0])
