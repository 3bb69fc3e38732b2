"""A client's connection as its requests see it: is it still there?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from starlette.requests import Request

CONNECTION = "connection"
"""Where the protocol leaves it in the ASGI state of each request."""


class Connection:
    """Tells all requests of one connection when the client has gone, and whether it reads what it is sent."""

    def __init__(self) -> None:
        self.clogged = False
        """Whether more waits for the client than its socket takes."""
        self._gone = False
        self._watchers: set[asyncio.Future[None]] = set()

    def watch(self) -> asyncio.Future[None]:
        """Done once the client has gone; cancel it when that does not matter any more."""
        watcher: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._gone:
            watcher.set_result(None)
        else:
            self._watchers.add(watcher)
            watcher.add_done_callback(self._watchers.discard)
        return watcher

    def pause(self) -> None:
        """The client does not read."""
        self.clogged = True

    def resume(self) -> None:
        """It reads again, or has gone."""
        self.clogged = False

    def lost(self) -> None:
        """The client has gone."""
        self._gone = True
        for watcher in list(self._watchers):
            if not watcher.done():
                watcher.set_result(None)


def hang_up(request: Request) -> Awaitable[None]:
    """Return when the client has gone; once the body has been read, so that nothing else can come."""
    connection: Connection | None = request.scope["state"].get(CONNECTION)
    return _disconnect(request) if connection is None else connection.watch()


async def _disconnect(request: Request) -> None:
    """The same under any other ASGI server, at the price of a task."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
