"""The routes that traffic is made of, answered without the framework's routing.

FastAPI matches paths, resolves dependencies and opens exit stacks for every request; these routes use none of it,
and that would be half of what they cost. They are declared to FastAPI all the same, which documents them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from service.engine.turns import Turns
from service.errors import Problem
from service.ingress import visit_of

Endpoint = Callable[..., Awaitable[Response]]
"""Takes the request, and the parameters of its path by name."""


class Express:
    """ASGI middleware between `Ingress` and the framework.

    Args:
        app: answers everything else.
        endpoints: what answers POST to these paths, which may have parameters: `/predict/{request_id}/continue`.
        on_problem: the answer to a problem that an endpoint raised.
        turns: of the event loop; each request takes one.
    """

    def __init__(
        self,
        app: ASGIApp,
        endpoints: Mapping[str, Endpoint],
        on_problem: Callable[[Request, Exception], Awaitable[Response]],
        turns: Turns,
    ) -> None:
        self._app = app
        self._endpoints = endpoints
        # Matched as the framework would match them.
        self._patterns = [(compile_path(path)[0], path) for path in endpoints if "{" in path]
        self._on_problem = on_problem
        self._turns = turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request that has passed `Ingress`."""
        express = scope["type"] == "http" and scope["method"] == "POST"
        route, parameters = self._match(scope["path"]) if express else (None, {})
        if route is None:
            await self._app(scope, receive, send)
            return
        await self._turns.request()
        request = Request(scope, receive, send)
        visit_of(request).route = route
        try:
            response = await self._endpoints[route](request=request, **parameters)
        except Problem as problem:
            response = await self._on_problem(request, problem)
        await response(scope, receive, send)

    def _match(self, path: str) -> tuple[str | None, dict[str, str]]:
        """The route that takes this path, as it was given, and the path's parameters by name."""
        if path in self._endpoints:
            return path, {}
        for pattern, route in self._patterns:
            found = pattern.match(path)
            if found:
                return route, found.groupdict()
        return None, {}
