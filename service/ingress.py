"""The first thing a request meets: its arrival is stamped, it gets an id, and its head and body are judged.

Pure ASGI, and in front of the framework: what is refused here costs next to nothing.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access import Access
from service.connection import CONNECTION, Connection
from service.engine.deadline import Clock, Deadline
from service.errors import BodyTooLarge, InternalError, Problem, problem_response
from service.protocol import ARRIVED, GIVEN_UP

log = logging.getLogger(__name__)

REQUEST_ID = b"x-request-id"
IDS_AT_ONCE = 256
HARMLESS = re.compile(rb"[A-Za-z0-9._-]{1,64}")


@dataclass(slots=True)
class Visit:
    """What is known of a request beside its content."""

    request_id: str
    arrived: float
    """Monotonic seconds at which the request's head had arrived."""
    headers: Mapping[bytes, bytes]
    """By lower-case name; of one that came twice, the last."""
    route: str = "unknown"
    """Path of the route that took it, with parameters by name: never what a client made up."""
    model: str = ""
    """Key of the deployment, once it is known."""
    deadline: Deadline | None = None
    """Once it is known."""
    decided: float | None = None
    """When the engine had decided the answer."""
    status: int = 0
    """HTTP status, once an answer has begun."""
    answered: bool = False
    """Whether all of it has been handed to the socket."""
    held_up: bool = False
    """Whether it waited for a client that did not read."""


def visit_of(request: HTTPConnection) -> Visit:
    """The visit that `Ingress` has made of this request, or of this upgrade."""
    visit: Visit = request.scope["state"]["visit"]
    return visit


class Ingress:
    """ASGI middleware around the whole application.

    Args:
        app: what it wraps.
        clock: stamps the arrival, unless the protocol has.
        access: says who may ask what.
        max_body_bytes: larger bodies are refused: by their header before they are read, else while they are.
        on_answered: called when the last byte of an answer has been handed to the socket.
        on_rejected: called with the code of each problem that is answered here.
    """

    def __init__(
        self,
        app: ASGIApp,
        clock: Clock,
        access: Access,
        max_body_bytes: int,
        on_answered: Callable[[Visit, float], None],
        on_rejected: Callable[[str], None],
    ) -> None:
        self._app = app
        self._clock = clock
        self._access = access
        self._max_body_bytes = max_body_bytes
        self._on_answered = on_answered
        self._on_rejected = on_rejected
        self._new_ids = _new_ids()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request of the ASGI server."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        arrived = state.get(ARRIVED) or self._clock.now()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        refused = self._access.refuse(scope, headers)
        visit = state["visit"] = Visit(self._request_id(headers), arrived, headers)
        if scope["type"] == "websocket":
            await self._connect(visit, refused, scope, receive, send)
            return
        send = self._watch(visit, scope, send)
        refused = refused or self._judge_length(headers)
        if refused is not None:
            self._on_rejected(refused.code)
            await problem_response(refused, visit.request_id)(scope, receive, send)
            return
        try:
            await self._app(scope, self._bound(scope, receive), send)
        except Exception:
            if visit.answered and visit.status == InternalError.status:
                # The framework raises what it has answered, and logged, once more.
                return
            log.exception("unexpected error", extra={"request_id": visit.request_id})
            if not visit.status:
                self._on_rejected(InternalError.code)
                await problem_response(InternalError(), visit.request_id)(scope, receive, send)
            elif not visit.answered:
                self._on_rejected(InternalError.code)
                # The server cuts the connection, so that nobody takes what has been sent for all of it.
                raise

    async def _connect(self, visit: Visit, refused: Problem | None, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an upgrade; what is refused, or fails before, is answered in place of it."""
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            if refused is None:
                await self._app(scope, receive, watched)
                return
        except Exception:
            if begun:
                # The server's to log, and to close with a code of its own.
                raise
            log.exception("unexpected error", extra={"request_id": visit.request_id})
            refused = InternalError()
        self._on_rejected(refused.code)
        await problem_response(refused, visit.request_id)(scope, receive, send)

    def _bound(self, scope: Scope, receive: Receive) -> Receive:
        """`receive`, judging: a body is refused when it grows too large, or is no longer waited for."""
        total = 0

        async def bounded() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > self._max_body_bytes:
                raise self._too_large()
            if GIVEN_UP in scope["state"]:
                raise scope["state"][GIVEN_UP]
            return message

        return bounded

    def _watch(self, visit: Visit, scope: Scope, send: Send) -> Send:
        connection: Connection | None = scope["state"].get(CONNECTION)

        async def watched(message: Message) -> None:
            visit.held_up = visit.held_up or (connection is not None and connection.clogged)
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                visit.route = getattr(scope.get("route"), "path", visit.route)
                message["headers"] = [*message["headers"], (REQUEST_ID, visit.request_id.encode())]
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                visit.answered = True
                now = self._clock.now()
                self._on_answered(visit, now)
                if log.isEnabledFor(logging.DEBUG):
                    duration_ms = round((now - visit.arrived) * 1e3, 3)
                    extra = {"request_id": visit.request_id, "duration_ms": duration_ms}
                    log.debug("%s %d", visit.route, visit.status, extra=extra)

        return watched

    def _request_id(self, headers: Mapping[bytes, bytes]) -> str:
        """The client's own id if it is harmless, else a new one."""
        given = headers.get(REQUEST_ID)
        return given.decode() if given is not None and HARMLESS.fullmatch(given) else next(self._new_ids)

    def _judge_length(self, headers: Mapping[bytes, bytes]) -> Problem | None:
        length = headers.get(b"content-length", b"")
        return self._too_large() if length.isdigit() and int(length) > self._max_body_bytes else None

    def _too_large(self) -> BodyTooLarge:
        problem = BodyTooLarge(
            f"The body exceeds {self._max_body_bytes} bytes: send fewer samples per request.",
            max_body_bytes=self._max_body_bytes,
        )
        # The rest of the body stays unread, so the connection cannot be used again.
        problem.headers["connection"] = "close"
        return problem


def _new_ids() -> Iterator[str]:
    """Unguessable names, of 32 hexadecimal digits; the system is asked for many at once, as each time costs a call."""
    while True:
        many = secrets.token_hex(16 * IDS_AT_ONCE)
        for start in range(0, len(many), 32):
            yield many[start : start + 32]
