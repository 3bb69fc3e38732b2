"""When requests arrived, by the kernel. Real sockets where its stamps are; nothing here waits for a time."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from unittest.mock import Mock

import pytest

from service.receiver import SO_TIMESTAMPNS, TIMESPEC, Receiver, received_ns, receiving

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
STAMP = (socket.SOL_SOCKET, SO_TIMESTAMPNS, TIMESPEC.pack(1000, 250_000_000))


def peeked(*ancillary: tuple[int, int, bytes]) -> Mock:
    return Mock(recvmsg=Mock(return_value=(b"P", list(ancillary), 0, None)))


def test_the_stamp_is_in_nanoseconds():
    assert received_ns(peeked((socket.SOL_SOCKET, 1, b"x"), STAMP)) == 1_000_250_000_000


def test_without_a_stamp_nothing_is_known():
    assert received_ns(peeked()) is None
    assert received_ns(peeked((socket.SOL_SOCKET, 1, b"x"))) is None
    assert received_ns(Mock(recvmsg=Mock(side_effect=BlockingIOError))) is None


@linux
def test_the_kernel_stamps_what_it_receives():
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as accepted,
    ):
        accepted.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        stamp = None
        # The first socket to ask is served a little later.
        while stamp is None:
            before = time.time_ns()
            client.sendall(b"abc")
            accepted.recv(1, socket.MSG_PEEK)
            after = time.time_ns()
            stamp = received_ns(accepted)
            assert accepted.recv(3) == b"abc", "a peek takes nothing away"
        assert before <= stamp <= after


class Reading:
    """A reader that tells what it was given."""

    def __init__(self, *, upgrades: bool = False) -> None:
        self.received_ns: int | None = -1
        self.received: asyncio.Queue[tuple[bytes, int | None]] = asyncio.Queue()
        self.lost = asyncio.Event()
        self._upgrades = upgrades

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received.put_nowait((data, self.received_ns))
        if self._upgrades:
            self.upgraded = Mock(spec=asyncio.Protocol, eof_received=Mock(return_value=False))
            self.transport.set_protocol(self.upgraded)

    def eof_received(self) -> None:
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


@pytest.mark.anyio
async def test_a_reader_gets_its_bytes_and_when_they_came():
    readers = [Reading(), Reading()]
    coming = iter(readers)
    server = await asyncio.get_running_loop().create_server(receiving(lambda: next(coming)), "127.0.0.1", 0)
    async with server:
        for reader in readers:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            stamp = None
            while stamp is None:
                before = time.time_ns()
                writer.write(b"question")
                data, stamp = await reader.received.get()
                assert data == b"question"
                if sys.platform != "linux":
                    break
            else:
                assert before <= stamp <= time.time_ns()
            writer.close()
            await reader.lost.wait()


@pytest.mark.anyio
async def test_a_connection_that_becomes_another_protocols_is_let_go():
    reader = Reading(upgrades=True)
    server = await asyncio.get_running_loop().create_server(receiving(lambda: reader), "127.0.0.1", 0)
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"upgrade")
        await reader.received.get()
        descriptor = reader.transport.get_extra_info("socket").fileno()
        os.fstat(descriptor)
        writer.write(b"frame")
        writer.close()
        done = asyncio.Event()
        reader.upgraded.connection_lost.side_effect = lambda _: done.set()
        await done.wait()
        reader.upgraded.data_received.assert_called_once_with(b"frame")
    assert not reader.lost.is_set()


def test_under_tls_the_bytes_of_the_socket_are_not_those_that_are_read():
    transport = Mock(get_extra_info=lambda name: Mock() if name == "sslcontext" else None)
    reader = Mock()
    receiver = Receiver(reader, memoryview(bytearray(8)))
    receiver.connection_made(transport)
    receiver.get_buffer(8)
    assert reader.received_ns is None
