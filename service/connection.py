"""A client's connection as its requests see it: is it still there?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from starlette.requests import Request

from service.engine.gate import Watch

CONNECTION = "connection"
"""Where the protocol leaves it in the ASGI state of each request."""


class Connection:
    """Tells all requests of one connection when the client has gone, and whether it reads what it is sent."""

    def __init__(self) -> None:
        self.clogged = False
        """Whether more waits for the client than its socket takes."""
        self._gone = False
        self._watchers: dict[int, Callable[[], object]] = {}
        self._last = 0

    def watch(self, gone: Callable[[], object]) -> Callable[[], object]:
        """Call `gone` once the client has gone, at once if it has; call what is returned when that does not matter."""
        if self._gone:
            gone()
        self._last += 1
        self._watchers[self._last] = gone
        return partial(self._watchers.pop, self._last, None)

    def pause(self) -> None:
        """The client does not read."""
        self.clogged = True

    def resume(self) -> None:
        """It reads again, or has gone."""
        self.clogged = False

    def lost(self) -> None:
        """The client has gone."""
        self._gone = True
        for gone in list(self._watchers.values()):
            gone()


def hang_up(request: Request) -> Watch:
    """Tells when the client has gone; once the body has been read, so that nothing else can come."""
    connection: Connection | None = request.scope["state"].get(CONNECTION)
    return partial(_watch, request) if connection is None else connection.watch


def _watch(request: Request, gone: Callable[[], object]) -> Callable[[], object]:
    """The same under any other ASGI server, at the price of a task."""
    task = asyncio.ensure_future(_disconnect(request))
    task.add_done_callback(lambda done: done.cancelled() or gone())
    return task.cancel


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
