"""The routes that traffic is made of, answered without the framework's routing.

FastAPI matches paths, resolves dependencies and opens exit stacks for every request; these routes use none of it,
and that would be half of what they cost. They are declared to FastAPI all the same, which documents them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import Problem
from service.ingress import visit_of

Endpoint = Callable[[Request], Awaitable[Response]]


class Express:
    """ASGI middleware between `Ingress` and the framework.

    Args:
        app: answers everything else.
        endpoints: what answers POST to these paths.
        on_problem: the answer to a problem that an endpoint raised.
    """

    def __init__(
        self,
        app: ASGIApp,
        endpoints: Mapping[str, Endpoint],
        on_problem: Callable[[Request, Exception], Awaitable[Response]],
    ) -> None:
        self._app = app
        self._endpoints = endpoints
        self._on_problem = on_problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request that has passed `Ingress`."""
        endpoint = self._endpoints.get(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        visit_of(request).route = scope["path"]
        try:
            response = await endpoint(request)
        except Problem as problem:
            response = await self._on_problem(request, problem)
        await response(scope, receive, send)
