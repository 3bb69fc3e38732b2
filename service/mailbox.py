"""What the client of a stream sends: read one message ahead, so that a hang-up is seen while a chunk is answered."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.types import Receive

from service.connection import Connection
from service.engine.deadline import Clock


class Gone(Exception):
    """The client has closed the stream, or the connection is lost."""


class Idle(Exception):
    """Nothing has come for too long."""


class Stopped(Exception):
    """The service is stopping."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message, and when it came."""

    arrived: float
    content: bytes | str


class Mailbox:
    """The messages of one client, in order; while one waits here the client's further ones wait in its socket.

    Args:
        receive: of the ASGI server.
        clock: stamps the arrivals.
    """

    def __init__(self, receive: Receive, clock: Clock) -> None:
        self._receive = receive
        self._clock = clock
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue(maxsize=1)
        self._stopped = asyncio.Event()
        self.connection = Connection()
        """Tells that the client has gone, as soon as that is read."""

    async def listen(self) -> None:
        """Read until the client has gone."""
        while (message := await self._receive())["type"] != "websocket.disconnect":
            content = message.get("bytes")
            await self._messages.put(Message(self._clock.now(), message["text"] if content is None else content))
        self.connection.lost()
        await self._messages.put(None)

    async def take(self, timeout_s: float) -> Message:
        """The next message.

        Raises:
            Gone: there is none, the client has gone.
            Idle: none has come within `timeout_s` seconds.
            Stopped: `stop` has been called; messages that wait are not looked at.
        """
        getting = asyncio.ensure_future(self._messages.get())
        stopping = asyncio.ensure_future(self._stopped.wait())
        try:
            await asyncio.wait({getting, stopping}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if self._stopped.is_set():
                raise Stopped
            if not getting.done():
                raise Idle
        finally:
            stopping.cancel()
            getting.cancel()
        message = getting.result()
        if message is None:
            raise Gone
        return message

    def stop(self) -> None:
        """Take no further message."""
        self._stopped.set()
