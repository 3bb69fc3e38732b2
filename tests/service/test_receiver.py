"""When requests arrived, by the kernel. Real sockets where its stamps are; nothing here waits for a time."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from unittest.mock import Mock

import pytest

from service.receiver import LONGEST_S, SO_TIMESTAMPNS, TIMESPEC, Receiver, receiving, waited_s

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
STAMP = (socket.SOL_SOCKET, SO_TIMESTAMPNS, TIMESPEC.pack(1000, 250_000_000))


def peeked(*ancillary: tuple[int, int, bytes]) -> Mock:
    return Mock(recvmsg=Mock(return_value=(b"P", list(ancillary), 0, None)))


@pytest.mark.parametrize(
    ("wall_s", "waited"),
    [(1000.25, 0.0), (1000.5, 0.25), (1000.0, 0.0), (1000.25 + LONGEST_S, 0.0)],
    ids=["at once", "late", "the clock was set back", "the clock was set on"],
)
def test_bytes_have_waited_since_their_stamp(wall_s: float, waited: float):
    assert waited_s(peeked(STAMP), lambda: round(wall_s * 1e9)) == waited


def test_without_a_stamp_they_have_not_waited():
    assert waited_s(peeked()) == 0.0
    assert waited_s(peeked((socket.SOL_SOCKET, 1, b"x"))) == 0.0
    assert waited_s(Mock(recvmsg=Mock(side_effect=BlockingIOError))) == 0.0


@linux
def test_the_kernel_stamps_what_it_receives():
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as accepted,
    ):
        accepted.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        waited = 0.0
        # The first socket to ask is served a little later.
        while not waited:
            client.sendall(b"abc")
            later_ns = time.time_ns() + 250_000_000
            waited = waited_s(accepted, lambda now=later_ns: now)
            assert accepted.recv(3) == b"abc", "a peek takes nothing away"
        assert waited >= 0.25


class Reading:
    """A reader that tells what it was given."""

    def __init__(self, *, upgrades: bool = False) -> None:
        self.waited_s = -1.0
        self.received: asyncio.Queue[tuple[bytes, float]] = asyncio.Queue()
        self.lost = asyncio.Event()
        self._upgrades = upgrades

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received.put_nowait((data, self.waited_s))
        if self._upgrades:
            self.upgraded = Mock(spec=asyncio.Protocol, eof_received=Mock(return_value=False))
            self.transport.set_protocol(self.upgraded)

    def eof_received(self) -> None:
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


@pytest.mark.anyio
async def test_a_reader_gets_its_bytes_and_for_how_long_they_have_waited():
    readers = [Reading(), Reading()]
    coming = iter(readers)
    server = await asyncio.get_running_loop().create_server(receiving(lambda: next(coming)), "127.0.0.1", 0)
    async with server:
        for reader in readers:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            waits = []
            while not any(waits):
                writer.write(b"question")
                data, waited = await reader.received.get()
                assert data == b"question"
                waits.append(waited)
                if sys.platform != "linux":
                    break
            assert 0 <= min(waits) <= max(waits) < LONGEST_S
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
    assert reader.waited_s == 0.0
