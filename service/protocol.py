"""uvicorn's HTTP protocol with bounds on what a slow or greedy client can hold.

uvicorn bounds only the pause between two requests. Here a client that does not finish a request's head or body in
time is answered 408, one whose head does not end 431, one that does not read its answer is cut off, and there are no
more connections than may be. A request that comes in one piece, as nearly all do, never touches a timer.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.access import PROBES
from service.connection import CONNECTION, Connection
from service.corked import Corked
from service.engine.deadline import Clock
from service.errors import (
    HeadTooLarge,
    MalformedRequest,
    Problem,
    RequestTimeout,
    ShuttingDown,
    TooManyConnections,
    document,
    problem_response,
)

log = logging.getLogger(__name__)

STREAM_PATH = b"/stream"
"""The one path that can be upgraded to a WebSocket."""

ARRIVED = "arrived"
"""In the ASGI state of a request: the instant at which its head had arrived."""

GIVEN_UP = "given_up"
"""Set in the ASGI state of a request whose body is no longer waited for: the problem to answer with."""

HEAD_BYTES = 2**16
"""What a head may have brought after its first packet without ending, and what may come with a body that is none of it:
sizes of chunks, and trailers."""
FRAMING = 8
"""Bytes that may come with each byte of a body: one in a chunk of its own is six."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client, and all of them together, may hold."""

    head_s: float
    """From a connection, or a request's first byte, to the end of its head."""
    body_s: float
    """From the end of the head to the end of the body."""
    send_s: float
    """For which a client may read nothing of an answer that waits for it."""
    connections: int
    spared_port: int | None = None
    """Local port on which nobody is refused for the number of connections: for looking inside when it is high."""


class _Receiving(Enum):
    FIRST = "the first byte of a new connection"
    HEAD = "a head"
    BODY = "a body"
    NOTHING = "nothing: the request is complete"


class BoundedProtocol(HttpToolsProtocol):
    """One connection.

    Args:
        uvicorn: what uvicorn gives to its protocols.
        limits: see `Limits`.
        clock: stamps the arrivals.
        on_rejected: called with the code of each problem that is answered here.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        clock: Clock,
        on_rejected: Callable[[str], None],
        **uvicorn: Any,  # noqa: ANN401
    ) -> None:
        self._connection = Connection()
        super().__init__(**{**uvicorn, "app_state": {**uvicorn["app_state"], CONNECTION: self._connection}})
        self._limits = limits
        self._clock = clock
        self._on_rejected = on_rejected
        self.received_ns: int | None = None
        """When the kernel had the bytes that are being parsed, by the wall clock; None: it does not say."""
        self._refused = False
        self._broken = False
        """Whether a body was none: what follows it cannot be read."""
        self._received = 0
        """Bytes since the first packet of the head, or of the body less what it brought."""
        self._receiving = _Receiving.FIRST
        self._timed = _Receiving.NOTHING
        self._receive_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head; one connection too many is answered, and closed."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections and not self._is_spared():
            self.app, self._refused = self._refuse, True
        self._time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the requests, and forget the timers."""
        super().connection_lost(exc)
        self._connection.lost()
        self._stop_timing()
        self.resume_writing()

    def _should_upgrade(self) -> bool:
        """Only where there is something behind it: elsewhere the request is answered without, as HTTP allows."""
        path, _, _ = self.url.partition(b"?")
        wanted = self.parser.get_method() == b"GET" and path == STREAM_PATH
        # What is still being answered on this connection would be written into the WebSocket.
        free = self.cycle is None or self.cycle.response_complete
        return wanted and free and not self._refused and super()._should_upgrade()

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing to warn of."""

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over; nothing of it is timed here any more."""
        self._stop_timing()
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        """Parse, then bound and time what is still to come."""
        if self._broken:
            return
        self._received += len(data)
        super().data_received(data)
        if self._received > HEAD_BYTES and self._receiving in (_Receiving.HEAD, _Receiving.BODY):
            self._refuse_more()
        elif self._receiving is not self._timed:
            self._time()

    def send_400_response(self, msg: str) -> None:
        """What came is not HTTP; `msg`, uvicorn's, says no more than that."""
        problem = MalformedRequest("What came is no HTTP/1.1 request: check what the client sends, and to where.")
        problem.headers["connection"] = "close"
        if self._receiving is _Receiving.BODY and not self.pipeline and not self.cycle.response_started:
            # The head was one: the application is waiting for this body, and answers.
            self._receiving, self._broken = _Receiving.NOTHING, True
            self._give_up(problem)
        else:
            self._answer(problem)

    def on_message_begin(self) -> None:
        """A head has begun."""
        super().on_message_begin()
        self._receiving = _Receiving.HEAD
        self._received = 0

    def on_headers_complete(self) -> None:
        """The request has arrived; a body may follow."""
        # Here, because its task may have to wait for the loop's other work.
        clock, received_ns = self._clock, self.received_ns
        self.scope["state"][ARRIVED] = clock.now() if received_ns is None else clock.at_wall(received_ns)
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            self.cycle.transport = Corked(self.transport, self.cycle)  # type: ignore[assignment]
            # Lines that come after a body are nobody's, least of all its author's credentials.
            self.headers = []
        self._receiving = _Receiving.BODY
        self._received = 0

    def on_body(self, body: bytes) -> None:
        """A piece of the body; what all of it may hold is for others to judge."""
        super().on_body(body)
        self._received = max(0, self._received - FRAMING * len(body))

    def on_message_complete(self) -> None:
        """Nothing of this request is to come."""
        super().on_message_complete()
        self._receiving = _Receiving.NOTHING
        if self._receive_timer is not None:
            # The next request of the same packet gets a time of its own.
            self._stop_timing()

    def pause_writing(self) -> None:
        """The client does not read: give it a while."""
        super().pause_writing()
        self._connection.pause()
        if self._send_timer is None:
            self._send_timer = self.loop.call_later(self._limits.send_s, self._cut_off)

    def resume_writing(self) -> None:
        """It reads again, or has gone."""
        super().resume_writing()
        self._connection.resume()
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _is_spared(self) -> bool:
        return self.server is not None and self.server[1] == self._limits.spared_port

    def _time(self) -> None:
        self._stop_timing()
        self._timed = self._receiving
        if self._timed is not _Receiving.NOTHING and not self.transport.is_closing():
            seconds = self._limits.body_s if self._timed is _Receiving.BODY else self._limits.head_s
            self._receive_timer = self.loop.call_later(seconds, self._expire)

    def _stop_timing(self) -> None:
        self._timed = _Receiving.NOTHING
        if self._receive_timer is not None:
            self._receive_timer.cancel()
            self._receive_timer = None

    def _expire(self) -> None:
        if self.transport.is_closing():
            return
        answering = self.cycle is not None and not self.cycle.response_complete
        if self._receiving is _Receiving.BODY and answering and not self.flow.read_paused:
            self._give_up(timeout_of("body", self._limits.body_s))
        elif self._receiving is _Receiving.HEAD and not answering:
            self._answer(timeout_of("head", self._limits.head_s))
        elif answering:
            # It is this side that does not read, or is not done with the request before.
            self._time()
        else:
            self.transport.close()

    def dismiss(self) -> None:
        """The service stops: a body that is still coming is not waited for."""
        if self._receiving is _Receiving.BODY and not self.cycle.response_complete:
            problem = ShuttingDown("The service is stopping: send the request again, to another or later.", 1)
            problem.headers["connection"] = "close"
            self._give_up(problem)

    def _give_up(self, problem: Problem) -> None:
        """The application is told by its next `receive`, and answers."""
        self.cycle.scope["state"][GIVEN_UP] = problem
        self.cycle.message_event.set()

    def _refuse_more(self) -> None:
        if self._receiving is _Receiving.HEAD:
            self._answer(HeadTooLarge(f"The head of the request exceeds {HEAD_BYTES} bytes: send fewer headers."))
        else:
            # Whatever reads the body finds that the client has gone.
            self.transport.abort()

    def _answer(self, problem: Problem) -> None:
        """Answer in place of the application, unless it is answering; then the connection goes without a word."""
        if self.cycle is None or self.cycle.response_complete:
            self._on_rejected(problem.code)
            body = document(problem, uuid.uuid4().hex)
            head = b"content-type: application/problem+json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(STATUS_LINE[problem.status] + head % len(body) + body)
        self.transport.close()

    def _cut_off(self) -> None:
        log.debug("a client did not read its answer for %g s: cut off", self._limits.send_s)
        self.transport.abort()

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in PROBES:
            # However many are connected, nobody should restart a service for that.
            await self.config.loaded_app(scope, receive, _and_close(send))
            return
        problem = TooManyConnections(
            f"{self._limits.connections} clients are connected, as many as may be: try again later.", 1
        )
        problem.headers["connection"] = "close"
        self._on_rejected(problem.code)
        await problem_response(problem, uuid.uuid4().hex)(scope, receive, send)


def _and_close(send: Send) -> Send:
    """`send`, but the connection ends with the answer."""

    async def last(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        await send(message)

    return last


def protocol(limits: Limits, clock: Clock, on_rejected: Callable[[str], None]) -> Callable[..., BoundedProtocol]:
    """What uvicorn makes its connections with."""
    return partial(BoundedProtocol, limits=limits, clock=clock, on_rejected=on_rejected)


def timeout_of(part: str, seconds: float) -> RequestTimeout:
    """The problem of a request whose head or body came too slowly."""
    problem = RequestTimeout(f"The {part} of the request did not come within {seconds:g} seconds: send it faster.")
    problem.headers["connection"] = "close"
    return problem
