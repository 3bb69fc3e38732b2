"""On uvicorn's own cycle: what an answer is written with is uvicorn's to decide, and could change."""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from unittest.mock import Mock

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.corked import Corked

LENGTH = [(b"content-length", b"4")]


class Transport:
    """Remembers each call that sends something."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def writelines(self, parts: tuple[bytes, ...]) -> None:
        self.calls.append(b"".join(parts))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def cycle_on(transport: Transport, method: str = "POST", *, keep_alive: bool = True, **changes: Any) -> Any:
    wanted = {"expect_100_continue": False, "on_response": Mock(), "default_headers": [], "access_log": False}
    cycle = RequestResponseCycle(
        scope={"method": method},
        transport=transport,
        flow=FlowControl(Mock()),
        logger=logging.getLogger("test"),
        access_logger=logging.getLogger("test"),
        message_event=asyncio.Event(),
        keep_alive=keep_alive,
        **{**wanted, **changes},
    )
    cycle.transport = Corked(transport, cycle)
    return cycle


def send(cycle: Any, *messages: dict[str, Any]) -> None:
    async def all_of_them() -> None:
        for message in messages:
            await cycle.send(message)

    asyncio.run(all_of_them())


def start(headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": headers}


def body(content: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more}


def test_head_and_body_are_one_write():
    transport = Transport()
    cycle = cycle_on(transport, keep_alive=False)
    send(cycle, start(LENGTH))
    assert transport.calls == []
    send(cycle, body(b"done"))
    assert len(transport.calls) == 1
    assert transport.calls[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert transport.calls[0].endswith(b"\r\n\r\ndone")
    assert transport.closed


def test_further_pieces_of_a_body_go_out_as_they_come():
    transport = Transport()
    send(cycle_on(transport), start(LENGTH), body(b"do", more=True), body(b"n", more=True), body(b"e"))
    assert transport.calls[0].endswith(b"\r\n\r\ndo")
    assert transport.calls[1:] == [b"n", b"e"]


def test_a_body_of_no_bytes_brings_its_head():
    transport = Transport()
    send(cycle_on(transport), start([(b"content-length", b"0")]), body(b""))
    assert len(transport.calls) == 1
    assert transport.calls[0].endswith(b"content-length: 0\r\n\r\n")


def test_the_head_of_a_stream_waits_for_nothing():
    transport = Transport()
    send(cycle_on(transport), start([(b"content-type", b"text/event-stream")]))
    assert len(transport.calls) == 1
    assert b"transfer-encoding: chunked" in transport.calls[0]


def test_an_answer_to_head_waits_for_no_body():
    transport = Transport()
    send(cycle_on(transport, "HEAD"), start(LENGTH), body(b""))
    assert len(transport.calls) == 1
    assert transport.calls[0].endswith(b"\r\n\r\n")


def test_an_invitation_to_continue_is_no_head():
    transport = Transport()
    cycle = cycle_on(transport, expect_100_continue=True)
    cycle.message_event.set()
    asyncio.run(cycle.receive())
    assert transport.calls == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    send(cycle, start(LENGTH))
    assert len(transport.calls) == 1
    send(cycle, body(b"done"))
    assert transport.calls[1].endswith(b"\r\n\r\ndone")
