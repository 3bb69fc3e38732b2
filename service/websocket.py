"""uvicorn's WebSocket protocol with the bounds of `protocol`, and an end that the application has a say in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from service.connection import CONNECTION, Connection

log = logging.getLogger(__name__)

CLOSE_S = 2.0
"""For the client to confirm the end of a stream; then the connection goes without that."""


UNREADABLE = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """One connection, from its upgrade on.

    Args:
        uvicorn: what uvicorn gives to its protocols.
        send_s: for which a client may read nothing of what waits for it.
    """

    def __init__(self, *, send_s: float, **uvicorn: Any) -> None:  # noqa: ANN401
        super().__init__(**uvicorn)
        self._connection: Connection = uvicorn["app_state"][CONNECTION]
        self.close_timeout = CLOSE_S
        self._send_s = send_s
        self._send_timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Parse. The head of the upgrade comes whole: one that websockets cannot read would else be waited for."""
        super().data_received(data)
        if not self.handshake_initiated and not self.transport.is_closing():
            self.transport.write(UNREADABLE)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application, and forget the timer."""
        super().connection_lost(exc)
        self._stop_timing()

    def pause_writing(self) -> None:
        """The client does not read: give it a while."""
        super().pause_writing()
        self._connection.pause()
        if self._send_timer is None:
            self._send_timer = self.loop.call_later(self._send_s, self._cut_off)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self._connection.resume()
        self._stop_timing()

    def keepalive_timeout(self) -> None:
        """Who does not answer a ping does not read what waits for it either: it is not waited for.

        Unless this side does not read: the answer may lie behind messages whose turn has not come.
        """
        if self.read_paused:
            self.pong_timer = self.pending_ping_payload = None
            self.schedule_ping()
            return
        super().keepalive_timeout()
        self.transport.abort()

    async def send(self, message: ASGISendEvent) -> None:
        """Send; an answer in place of the upgrade ends the connection in good order."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True

    def shutdown(self) -> None:
        """The server stops. An open stream ends by itself, with its last answer: `Streams.drain` has told it."""
        if self.close_sent or not self.handshake_complete:
            super().shutdown()

    def _cut_off(self) -> None:
        log.debug("a client did not read its events for %g s: cut off", self._send_s)
        self.transport.abort()

    def _stop_timing(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None


def websocket(send_s: float) -> Callable[..., BoundedWebSocket]:
    """What uvicorn goes on with after an upgrade."""
    return partial(BoundedWebSocket, send_s=send_s)
