"""The first thing a request meets: its arrival is stamped, it gets an id, and its body is bounded.

Pure ASGI: Starlette's function middleware would hide a client's disconnect from the route.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.engine.deadline import Clock, Deadline
from service.errors import BodyTooLarge, InternalError, problem_response

log = logging.getLogger(__name__)

REQUEST_ID = "x-request-id"


@dataclass(slots=True)
class Visit:
    """What is known of a request beside its content."""

    request_id: str
    arrived: float
    """Monotonic seconds at which the request's head had been read."""
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


def visit_of(request: Request) -> Visit:
    """The visit that `Ingress` has made of this request."""
    visit: Visit = request.scope["state"]["visit"]
    return visit


class Ingress:
    """ASGI middleware around the whole application.

    Args:
        app: what it wraps.
        clock: stamps the arrival.
        max_body_bytes: larger bodies are refused: by their header before they are read, else while they are.
        on_answered: called when the last byte of an answer has been handed to the socket.
        on_rejected: called with the code of each problem that is answered here.
    """

    def __init__(
        self,
        app: ASGIApp,
        clock: Clock,
        max_body_bytes: int,
        on_answered: Callable[[Visit, float], None],
        on_rejected: Callable[[str], None],
    ) -> None:
        self._app = app
        self._clock = clock
        self._max_body_bytes = max_body_bytes
        self._on_answered = on_answered
        self._on_rejected = on_rejected

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection of the ASGI server."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        visit = Visit(_request_id(headers), self._clock.now())
        scope.setdefault("state", {})["visit"] = visit
        send = self._watch(visit, scope, send)
        if _declared_length(headers) > self._max_body_bytes:
            # The body stays unread, so the connection cannot be used again.
            problem = self._too_large()
            problem.headers["connection"] = "close"
            self._on_rejected(problem.code)
            await problem_response(problem, visit.request_id)(scope, receive, send)
            return
        try:
            await self._app(scope, self._bound(receive), send)
        except Exception:
            log.exception("unexpected error", extra={"request_id": visit.request_id})
            if visit.status:
                raise
            self._on_rejected(InternalError.code)
            await problem_response(InternalError(), visit.request_id)(scope, receive, send)

    def _bound(self, receive: Receive) -> Receive:
        """`receive`, counting: a body without a length header is refused when it grows too large."""
        total = 0

        async def bounded() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > self._max_body_bytes:
                raise self._too_large()
            return message

        return bounded

    def _watch(self, visit: Visit, scope: Scope, send: Send) -> Send:
        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                visit.route = getattr(scope.get("route"), "path", visit.route)
                MutableHeaders(scope=message)[REQUEST_ID] = visit.request_id
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                now = self._clock.now()
                self._on_answered(visit, now)
                log.debug(
                    "%s %d", visit.route, visit.status,
                    extra={"request_id": visit.request_id, "duration_ms": round((now - visit.arrived) * 1e3, 3)},
                )  # fmt: skip

        return watched

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(
            f"The body exceeds {self._max_body_bytes} bytes: send fewer samples per request.",
            max_body_bytes=self._max_body_bytes,
        )


def _request_id(headers: Headers) -> str:
    """The client's own id if it is harmless, else a new one."""
    given = headers.get(REQUEST_ID, "")
    return given if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given) else uuid.uuid4().hex


def _declared_length(headers: Headers) -> int:
    length = headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0
