"""uvicorn's HTTP protocol with bounds on what a slow or greedy client can hold.

uvicorn bounds only the pause between two requests. Here a client that does not finish a request's head or body in
time is answered 408, one that does not read its answer is cut off, and there are no more connections than may be.
A request that comes in one piece, as nearly all do, never touches a timer.
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

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.connection import CONNECTION, Connection
from service.engine.deadline import Clock
from service.errors import RequestTimeout, TooManyConnections, document, problem_response

log = logging.getLogger(__name__)

STREAM_PATH = b"/stream"
"""The one path that can be upgraded to a WebSocket."""

ARRIVED = "arrived"
"""In the ASGI state of a request: the instant at which its head had arrived."""

EXPIRED = "body_expired"
"""Set in the ASGI state of a request whose body came too slowly."""


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
        return wanted and not self._refused and super()._should_upgrade()

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing to warn of."""

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over; nothing of it is timed here any more."""
        self._stop_timing()
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        """Parse, then time what is still to come."""
        super().data_received(data)
        if self._receiving is not self._timed:
            self._time()

    def on_message_begin(self) -> None:
        """A head has begun."""
        super().on_message_begin()
        self._receiving = _Receiving.HEAD

    def on_headers_complete(self) -> None:
        """The request has arrived; a body may follow."""
        # Here, because its task may have to wait for the loop's other work.
        clock, received_ns = self._clock, self.received_ns
        self.scope["state"][ARRIVED] = clock.now() if received_ns is None else clock.at_wall(received_ns)
        super().on_headers_complete()
        self._receiving = _Receiving.BODY

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
        if self._send_timer is None:
            self._send_timer = self.loop.call_later(self._limits.send_s, self._cut_off)

    def resume_writing(self) -> None:
        """It reads again, or has gone."""
        super().resume_writing()
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
            # The application is told by its next `receive`, and answers.
            self.cycle.scope["state"][EXPIRED] = True
            self.cycle.message_event.set()
        elif self._receiving is _Receiving.HEAD and not answering:
            self._answer_408()
        elif answering:
            # It is this side that does not read, or is not done with the request before.
            self._time()
        else:
            self.transport.close()

    def _answer_408(self) -> None:
        self._on_rejected(RequestTimeout.code)
        body = document(timeout_of("head", self._limits.head_s), uuid.uuid4().hex)
        head = b"content-type: application/problem+json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[RequestTimeout.status] + head + body)
        self.transport.close()

    def _cut_off(self) -> None:
        log.debug("a client did not read its answer for %g s: cut off", self._limits.send_s)
        self.transport.abort()

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = TooManyConnections(
            f"{self._limits.connections} clients are connected, as many as may be: try again later.", 1
        )
        problem.headers["connection"] = "close"
        self._on_rejected(problem.code)
        await problem_response(problem, uuid.uuid4().hex)(scope, receive, send)


def protocol(limits: Limits, clock: Clock, on_rejected: Callable[[str], None]) -> Callable[..., BoundedProtocol]:
    """What uvicorn makes its connections with."""
    return partial(BoundedProtocol, limits=limits, clock=clock, on_rejected=on_rejected)


def timeout_of(part: str, seconds: float) -> RequestTimeout:
    """The problem of a request whose head or body came too slowly."""
    problem = RequestTimeout(f"The {part} of the request did not come within {seconds:g} seconds: send it faster.")
    problem.headers["connection"] = "close"
    return problem
