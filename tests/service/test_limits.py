"""What a slow, greedy or unknown client gets. Nothing here waits for a time: each test waits for an answer."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest

from bundle import Bundle
from service.app import create_app
from service.client import AnytimeClient, AnytimeError
from service.protocol import ARRIVED, GIVEN_UP, HEAD_BYTES, BoundedProtocol, Limits
from service.server import Server as Process
from service.settings import Settings
from tests.fakes import FakeClock
from tests.service.server import Server, serving
from tests.tiny import samples

KEY = "a-key-of-some-length"
SHORT_S = 0.05


@contextmanager
def running(models: Path, *sockets: socket.socket, ready: bool = True, **changes: Any) -> Iterator[Server]:
    settings = Settings(models_dir=models, device="cpu", cpu_threads=1, max_batch_rows=2, **changes)
    with serving(create_app(settings), *sockets, ready=ready) as server:
        yield server


def connect(server: Server) -> socket.socket:
    return socket.create_connection(httpx.URL(server.url).netloc.decode().split(":"), timeout=60)


def all_of(wire: socket.socket) -> bytes:
    """Everything until the server closes."""
    received = b""
    while more := wire.recv(10_000):
        received += more
    return received


def problem(answer: bytes) -> tuple[bytes, dict[str, Any]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head.lower()
    return head.split(b"\r\n")[0], json.loads(body)


def rejected(server: Server, code: str) -> float:
    return server.context.metrics.registry.get_sample_value("anytime_rejected_total", {"reason": code}) or 0.0


def test_a_head_that_does_not_end_is_answered_408(tiny: Bundle, models: Path):
    with running(models, head_timeout_s=SHORT_S) as server, connect(server) as wire:
        wire.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\nx-slow: ")
        line, document = problem(all_of(wire))
        assert (line, document["code"]) == (b"HTTP/1.1 408 Request Timeout", "request_timeout")
        assert "The head of the request did not come within 0.05 seconds" in document["detail"]
        assert rejected(server, "request_timeout") == 1


def test_a_second_head_on_a_kept_connection_is_timed_too(tiny: Bundle, models: Path):
    with running(models, head_timeout_s=SHORT_S) as server, connect(server) as wire:
        wire.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /heal")
        answer = all_of(wire)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1 408 " in answer


def test_a_connection_that_says_nothing_is_closed_without_a_word(tiny: Bundle, models: Path):
    with running(models, head_timeout_s=SHORT_S) as server, connect(server) as wire:
        assert all_of(wire) == b""
        assert rejected(server, "request_timeout") == 0


@pytest.mark.parametrize("path", ["/predict", "/predict/stream", "/feedback"])
def test_a_body_that_does_not_end_is_answered_408(tiny: Bundle, models: Path, path: str):
    with running(models, body_timeout_s=SHORT_S) as server, connect(server) as wire:
        wire.sendall(b'POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"inputs"' % path.encode())
        line, document = problem(all_of(wire))
        assert (line, document["code"]) == (b"HTTP/1.1 408 Request Timeout", "request_timeout")
        assert document["detail"].startswith("The body of the request")
        assert rejected(server, "request_timeout") == 1
        assert server.context.gate.requests_in_flight == 0


def test_a_body_in_pieces_is_no_slow_body(tiny: Bundle, models: Path):
    body = json.dumps({"inputs": samples(1).tolist()}).encode()
    with running(models) as server, connect(server) as wire:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = b"POST /predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        for byte in head + body:
            wire.sendall(bytes([byte]))
        assert all_of(wire).startswith(b"HTTP/1.1 200 ")


def test_one_connection_too_many_is_told_so(tiny: Bundle, models: Path):
    # The server is ready after some connections of its own: they have gone by then, or the test waits for it.
    with running(models, max_connections=3) as server, ExitStack() as stack:
        held = [stack.enter_context(connect(server)) for _ in range(3)]
        for wire in held:
            wire.sendall(b"GET /models HTTP/1.1\r\nhost: x\r\n\r\n")
        taken = [wire.recv(10_000).split(b"\r\n")[0] for wire in held]
        while b"HTTP/1.1 503 Service Unavailable" in taken:
            # A connection of the readiness check was still closing.
            slot = taken.index(b"HTTP/1.1 503 Service Unavailable")
            held[slot] = stack.enter_context(connect(server))
            held[slot].sendall(b"GET /models HTTP/1.1\r\nhost: x\r\n\r\n")
            taken[slot] = held[slot].recv(10_000).split(b"\r\n")[0]
        before = rejected(server, "too_many_connections")
        with connect(server) as wire:
            wire.sendall(b"GET /models HTTP/1.1\r\nhost: x\r\n\r\n")
            line, document = problem(all_of(wire))
        assert (line, document["code"]) == (b"HTTP/1.1 503 Service Unavailable", "too_many_connections")
        assert document["retry_after_s"] == 1
        assert rejected(server, "too_many_connections") == before + 1
        with connect(server) as wire:
            wire.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            answer = all_of(wire)
        assert answer.startswith(b"HTTP/1.1 200 "), "nobody should restart a service because many are connected"
        assert b"\r\nconnection: close\r\n" in answer


CHUNKED = b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("content", [b"\x16\x03\x01 hello\r\n\r\n", CHUNKED + b"zz\r\n"], ids=["head", "body"])
def test_what_is_no_http_is_answered_as_a_problem_and_counted_once(tiny: Bundle, models: Path, content: bytes):
    with running(models) as server, connect(server) as wire:
        wire.sendall(content)
        line, document = problem(all_of(wire))
        assert (line, document["code"]) == (b"HTTP/1.1 400 Bad Request", "malformed_request")
        assert (rejected(server, "malformed_request"), rejected(server, "malformed_body")) == (1, 0)


def test_what_follows_a_broken_body_is_not_looked_at(process: Process):
    one, transport, _ = connected(process, LIMITS)
    one._start_asgi_task = Mock()
    one.data_received(b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
    one.data_received(b"more of it")
    assert one.cycle.scope["state"][GIVEN_UP].code == "malformed_request"
    assert not transport.close.called, "the application has not answered yet"


def test_who_hangs_up_while_a_body_comes_is_no_error_of_the_service(tiny: Bundle, models: Path):
    with running(models) as server:
        with connect(server) as wire:
            wire.sendall(b"POST /models/tiny/load HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc")
        while not rejected(server, "malformed_body"):
            assert rejected(server, "internal_error") == 0


def test_what_comes_after_a_body_is_no_header(tiny: Bundle, models: Path):
    body = json.dumps({"inputs": samples(1).tolist()}).encode()
    chunked = b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(body), body)
    with running(models, api_keys=(KEY,)) as server:
        for key, trailer, status in ((b"", KEY.encode(), b"401"), (b"x-api-key: " + KEY.encode(), b"another", b"200")):
            with connect(server) as wire:
                head = b"POST /predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" + (key and key + b"\r\n")
                wire.sendall(head + chunked + b"x-api-key: " + trailer + b"\r\nx-request-id: mine\r\n\r\n")
                answer = all_of(wire)
            assert answer.split(b" ")[1] == status
            assert b"x-request-id: mine" not in answer


def test_a_body_in_chunks_of_a_byte_is_read(tiny: Bundle, models: Path):
    body = json.dumps({"inputs": samples(1).tolist()}).encode() + b" " * HEAD_BYTES
    with running(models) as server, connect(server) as wire:
        wire.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n")
        wire.sendall(b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
        assert all_of(wire).startswith(b"HTTP/1.1 200 ")


def test_a_body_that_is_still_coming_at_the_end_of_a_drain_is_answered(tiny: Bundle, models: Path):
    with running(models, drain_s=SHORT_S) as server, connect(server) as wire:
        wire.sendall(
            b'POST /predict HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 99\r\n\r\n{"inputs"'
        )
        assert wire.recv(100).startswith(b"HTTP/1.1 100 "), "the body is being waited for"
        server.terminate()
        line, document = problem(all_of(wire))
        assert (line, document["code"]) == (b"HTTP/1.1 503 Service Unavailable", "shutting_down")


class Timers:
    """The part of an event loop that a connection uses; time passes when the test says so."""

    def __init__(self) -> None:
        self.set: list[tuple[Callable[[], None], Mock]] = []

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Mock:
        handle = Mock(cancelled=False)
        handle.cancel = lambda: setattr(handle, "cancelled", True)
        self.set.append((callback, handle))
        return handle

    def fire(self) -> None:
        for callback, handle in self.set:
            if not handle.cancelled:
                callback()


@pytest.fixture
def process(tiny: Bundle, models: Path) -> Process:
    return Process(create_app(Settings(models_dir=models, device="cpu")))


def connected(
    process: Process, limits: Limits, port: int = 8000, clock: FakeClock | None = None
) -> tuple[BoundedProtocol, Mock, Timers]:
    transport, timers = Mock(), Timers()
    transport.is_closing.return_value = False
    names = {"sockname": ("127.0.0.1", port), "peername": ("127.0.0.1", 4), "socket": None, "sslcontext": None}
    transport.get_extra_info = names.get
    one = BoundedProtocol(
        limits=limits,
        clock=clock or FakeClock(),
        on_rejected=Mock(),
        config=process.config,
        server_state=process.server_state,
        app_state={},
        _loop=timers,
    )
    one.connection_made(transport)
    return one, transport, timers


LIMITS = Limits(head_s=1, body_s=1, send_s=1, connections=9)


@pytest.mark.parametrize("answering", [False, True])
def test_a_head_that_goes_on_and_on_is_answered_431(process: Process, answering: bool):
    one, transport, _ = connected(process, LIMITS)
    one._start_asgi_task = Mock()
    if answering:
        one.data_received(b"GET /models HTTP/1.1\r\nhost: x\r\n\r\n")
    one.data_received(b"GET /models HTTP/1.1\r\nhost: x\r\nx-long: ")
    one.data_received(b"a" * HEAD_BYTES)
    assert not transport.close.called
    one.data_received(b"a")
    transport.close.assert_called_once_with()
    # In the middle of another answer it would be taken for a part of it.
    assert transport.write.called != answering
    if not answering:
        one._on_rejected.assert_called_once_with("head_too_large")
        line, document = problem(transport.write.call_args.args[0])
        assert (line, document["code"]) == (b"HTTP/1.1 431 Request Header Fields Too Large", "head_too_large")


def test_an_upgrade_behind_what_is_still_being_answered_is_none(process: Process):
    one, transport, _ = connected(process, LIMITS)
    one._start_asgi_task = Mock()
    one.data_received(b"GET /models HTTP/1.1\r\nhost: x\r\n\r\n")
    one.data_received(
        b"GET /stream HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-version: 13\r\n\r\n"
    )
    assert not transport.set_protocol.called
    assert len(one.pipeline) == 1, "it is answered without, after the other"


def test_each_head_of_a_connection_may_be_as_long(process: Process):
    one, transport, _ = connected(process, LIMITS)
    one._start_asgi_task = Mock()
    for _ in range(4):
        one.data_received(b"GET /models HTTP/1.1\r\nhost: x\r\nx-long: ")
        one.data_received(b"a" * (HEAD_BYTES - 4))
        one.data_received(b"\r\n\r\n")
        one.cycle.response_complete = True
    assert one._start_asgi_task.call_count == 4
    assert not transport.close.called


def test_trailers_that_do_not_end_are_cut_off(process: Process):
    one, transport, _ = connected(process, LIMITS)
    one._start_asgi_task = Mock()
    one.data_received(b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nx-long: ")
    one.data_received(b"a" * HEAD_BYTES)
    assert not transport.abort.called
    one.data_received(b"a")
    transport.abort.assert_called_once_with()


@pytest.mark.parametrize("reads_again", [False, True])
def test_a_client_that_does_not_read_is_cut_off(process: Process, reads_again: bool):
    one, transport, timers = connected(process, Limits(head_s=1, body_s=1, send_s=1, connections=9))
    timers.set.clear()
    one.pause_writing()
    if reads_again:
        one.resume_writing()
    timers.fire()
    assert transport.abort.called != reads_again


def test_a_request_in_one_piece_sets_no_timer(process: Process):
    one, _, timers = connected(process, Limits(head_s=1, body_s=1, send_s=1, connections=9))
    (_, first) = timers.set.pop()
    one._start_asgi_task = Mock()
    one.data_received(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    assert first.cancelled
    assert timers.set == []


def test_a_request_has_arrived_when_its_head_has_been_read(process: Process):
    clock = FakeClock()
    one, _, _ = connected(process, Limits(head_s=1, body_s=1, send_s=1, connections=9), clock=clock)
    one._start_asgi_task = Mock()
    one.data_received(b"POST /predict HTTP/1.1\r\nhost: x\r\n")
    clock.advance(0.25)
    read = clock.now()
    one.data_received(b"content-length: 1\r\n\r\n")
    clock.advance(0.25)
    one.data_received(b"x")
    assert one.scope["state"][ARRIVED] == read


def test_where_the_kernel_says_when_it_had_the_head_that_is_the_arrival(process: Process):
    clock = Mock(now=Mock(return_value=1000.0), at_wall=lambda wall_ns: wall_ns / 1e9)
    one, _, _ = connected(process, Limits(head_s=1, body_s=1, send_s=1, connections=9), clock=clock)
    one._start_asgi_task = Mock()
    for received_ns, piece in (
        (7 * 10**9, b"POST / HTTP/1.1\r\nhost: x\r\n"),
        (8 * 10**9, b"content-length: 1\r\n\r\n"),
    ):
        one.received_ns = received_ns
        one.data_received(piece)
    assert one.scope["state"][ARRIVED] == 8.0, "when the last of it came"


def test_the_admin_port_is_spared_when_there_are_too_many(process: Process):
    limits = Limits(head_s=1, body_s=1, send_s=1, connections=1, spared_port=9000)
    apps = [connected(process, limits, port)[0].app for port in (8000, 8000, 9000)]
    assert [app == process.config.loaded_app for app in apps] == [True, False, True]


def test_with_keys_all_but_the_probes_wants_one(tiny: Bundle, models: Path):
    with running(models, api_keys=KEY, ready=False) as server:
        for path in ("/models", "/metrics", "/docs", "/absent"):
            refused = httpx.get(server.url + path)
            assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
            assert refused.headers["www-authenticate"] == "Bearer"
        with AnytimeClient(server.url, api_key=KEY) as client, AnytimeClient(server.url) as stranger:
            while not stranger.ready():
                assert server.context.worker.alive
            assert client.predict(samples(1)).members_used == 3
            with pytest.raises(AnytimeError) as caught:
                stranger.predict(samples(1))
        assert (caught.value.status, caught.value.code) == (401, "unauthorized")
        assert httpx.get(f"{server.url}/models", headers={"x-api-key": KEY}).status_code == 200


def test_metrics_move_to_the_admin_port(tiny: Bundle, models: Path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with running(models, listener, admin_port=port) as server:
            inside = f"http://127.0.0.1:{port}"
            assert httpx.get(f"{server.url}/metrics").json()["code"] == "not_found"
            assert "anytime_requests_in_flight" in httpx.get(f"{inside}/metrics").text
            assert httpx.get(f"{inside}/readyz").status_code == 200
            assert httpx.get(f"{server.url}/models").status_code == 200
