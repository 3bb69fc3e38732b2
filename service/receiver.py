"""When a request arrived: when the kernel had its bytes, not when this process got round to reading them.

At the start of a burst the event loop has dozens of requests to read, and the last of them has by then lived for
milliseconds: a deadline that was counted from the reading would be missed by as much, seen from the client. Linux
remembers when it received each segment (SO_TIMESTAMPNS), and tells it with a peek at the bytes just before they are
read. Elsewhere, and under TLS, where what is read are not the bytes of the socket, the reading is the arrival.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Callable

from service.protocol import BoundedProtocol

SO_TIMESTAMPNS = 35
"""From Linux's asm-generic/socket.h; Python does not name it."""

TIMESPEC = struct.Struct("@ll")
ANCILLARY_BYTES = socket.CMSG_SPACE(TIMESPEC.size)
PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)
"""A plain number: as an enumeration it would be put together anew each time."""
BUFFER_BYTES = 2**18


class Receiver(asyncio.BufferedProtocol):
    """Reads one connection. It is asked for a buffer just before each read, which is when it peeks.

    Args:
        reader: gets everything else, and in its `received_ns` when the kernel had what it gets next.
        buffer: what is read is read into, and copied from before anything else can be: all connections of an event
            loop may share it.
    """

    def __init__(self, reader: BoundedProtocol, buffer: memoryview) -> None:
        self._reader = reader
        self._buffer = buffer
        self._socket: socket.socket | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Ask for time stamps, where there are any."""
        self._transport = transport
        if sys.platform == "linux" and transport.get_extra_info("sslcontext") is None:
            self._socket = _alias(transport)
        self._reader.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is about to close its socket."""
        self._let_go()
        self._reader.connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:
        """What is peeked at here is read next."""
        self._reader.received_ns = None if self._socket is None else received_ns(self._socket)
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have been read; they may make it another protocol's connection."""
        self._reader.data_received(bytes(self._buffer[:nbytes]))
        assert self._transport is not None
        if self._transport.get_protocol() is not self:
            self._let_go()

    def eof_received(self) -> None:
        """The client sends no more."""
        self._reader.eof_received()

    def pause_writing(self) -> None:
        """The client does not read."""
        self._reader.pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        self._reader.resume_writing()

    def _let_go(self) -> None:
        if self._socket is not None:
            self._socket.detach()
            self._socket = None


def received_ns(connected: socket.socket) -> int | None:
    """When the kernel received the socket's first unread byte, by the wall clock; None where it does not say."""
    try:
        _, ancillary, _, _ = connected.recvmsg(1, ANCILLARY_BYTES, PEEK)
    except OSError:
        # Nothing there, or broken: the read that follows will say which.
        return None
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) == TIMESPEC.size:
            seconds, nanoseconds = TIMESPEC.unpack(data)
            return int(seconds * 10**9 + nanoseconds)
    return None


def _alias(transport: asyncio.Transport) -> socket.socket | None:
    """The transport's socket, of which only its methods are wanted: it stays the transport's to close."""
    shown = transport.get_extra_info("socket")
    connected = socket.socket(shown.family, shown.type, shown.proto, fileno=shown.fileno())
    try:
        connected.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    except OSError:
        connected.detach()
        return None
    return connected


def receiving(make_reader: Callable[..., BoundedProtocol]) -> Callable[..., Receiver]:
    """A factory of receivers for a factory of readers."""
    buffer = memoryview(bytearray(BUFFER_BYTES))

    def make(**arguments: object) -> Receiver:
        return Receiver(make_reader(**arguments), buffer)

    return make
