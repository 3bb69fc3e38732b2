from __future__ import annotations

import contextlib
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from benchmarks.load import BadReply, closed_loop, post


class Handler(socketserver.StreamRequestHandler):
    """Answers each request of a connection in two pieces."""

    received = 0

    def handle(self) -> None:
        # The load hangs up on the others when one is refused.
        with contextlib.suppress(ConnectionError):
            self._answer_all()

    def _answer_all(self) -> None:
        while line := self.rfile.readline():
            length = 0
            while (header := self.rfile.readline()).strip():
                name, _, value = header.partition(b":")
                length = int(value) if name == b"content-length" else length
            body = self.rfile.read(length)
            Handler.received += 1
            status = b"200 OK" if line.startswith(b"POST /good") else b"503 Busy"
            self.wfile.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body) + 1, body[:1]))
            self.wfile.write(body[1:] + b"!")


@pytest.fixture
def address() -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_every_connection_is_answered_and_counted(address: str):
    before = Handler.received
    started = time.perf_counter()
    load = closed_loop(address, post("/good", b"hello"), connections=3, seconds=0.01)
    elapsed = time.perf_counter() - started
    assert len(load.latencies_s) == Handler.received - before, "those under way at the end too"
    assert len(load.latencies_s) >= 3
    assert max(load.latencies_s) <= load.seconds <= elapsed
    assert load.last == b"hello!"
    assert load.rate == len(load.latencies_s) / load.seconds


def test_a_refusal_is_no_reply(address: str):
    with pytest.raises(BadReply, match="503 Busy"):
        closed_loop(address, post("/bad", b"x"), connections=2, seconds=60)
