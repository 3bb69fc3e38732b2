"""The head and the body of an answer go out together: one call to the system, and the client is woken once.

uvicorn writes an answer's head when it is known, and its body after it. Where both are there at once that is a packet
too many.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class Corked:
    """The transport of one request's answer, as uvicorn uses it; keeps a head of known length until its body comes.

    Without a length the answer is a stream: its client is told at once that it has begun.

    Args:
        transport: of the connection.
        cycle: of the request.
    """

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle) -> None:
        self._transport = transport
        self._cycle = cycle
        self._begun = False
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        """Send `data`, if it is no head that is to wait, after a head that has."""
        cycle = self._cycle
        if cycle.response_started and not self._begun:
            self._begun = True
            # Nothing follows the head of an answer to HEAD.
            if cycle.chunked_encoding is False and cycle.scope["method"] != "HEAD":
                self._head = data
                return
        if self._head is None:
            self._transport.write(data)
        else:
            self._transport.writelines((self._head, data))
            self._head = None

    def close(self) -> None:
        """Close the connection, once what was sent has gone out."""
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self._transport.is_closing()
