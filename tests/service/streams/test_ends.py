"""Streams that are refused, go wrong, or are ended from outside: what the client is told, and that nothing is left."""

from __future__ import annotations

import json
import logging
import socket
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import numpy as np
import pytest
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bundle import Bundle
from service.app import create_app
from service.websocket import BoundedWebSocket
from tests.fakes import FailingExecutor, HeldExecutor
from tests.service.server import Server, serving
from tests.service.streams.sockets import (
    KEY,
    chunks,
    metric,
    nothing_left,
    opened,
    reference,
    settings,
)
from tests.tiny_stream import CHUNK_STEPS, FEATURES, STEPS, sequences, write_stream


def refusal(server: Server, headers: dict[str, str] | None = None, **query: Any) -> tuple[int, dict[str, Any]]:
    with pytest.raises(InvalidStatus) as caught, opened(server, headers, **query):
        pass
    response = caught.value.response
    assert response.headers["content-type"] == "application/problem+json"
    document = json.loads(response.body)
    assert document["status"] == response.status_code
    return response.status_code, document


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"model": "tiny"}, 422, "not_streamable"),
        ({"model": "absent"}, 404, "unknown_model"),
        ({"model": "stream", "version": 9}, 404, "unknown_version"),
        ({"model": "stream", "deadline_ms": 0}, 422, "invalid_deadline"),
        ({"model": "stream", "deadline_ms": "soon"}, 422, "invalid_field"),
        ({"model": "stream", "exit_confidence": 1.5}, 422, "invalid_field"),
        ({"model": "stream", "unknown": 1}, 422, "invalid_field"),
    ],
)
def test_what_cannot_be_streamed_is_refused_before_the_upgrade(
    shared: Server, query: dict[str, Any], status: int, code: str
):
    before = metric(shared, "rejected_total", reason=code)
    found, document = refusal(shared, **query)
    assert (found, document["code"]) == (status, code)
    assert metric(shared, "rejected_total", reason=code) == before + 1


def test_a_refused_upgrade_is_no_error_of_the_service(shared: Server, caplog: pytest.LogCaptureFixture):
    refusal(shared, model="absent")
    # By the time of another answer the upgrade's task has ended.
    httpx.get(f"{shared.url}/healthz")
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("paused", [False, True])
def test_a_pong_may_lie_behind_messages_whose_turn_has_not_come(monkeypatch: pytest.MonkeyPatch, paused: bool):
    one = BoundedWebSocket.__new__(BoundedWebSocket)
    one.read_paused, one.transport, one.schedule_ping = paused, Mock(), Mock()
    monkeypatch.setattr(WebSocketsSansIOProtocol, "keepalive_timeout", lambda _: None)
    one.keepalive_timeout()
    assert one.schedule_ping.called == paused
    assert one.transport.abort.called != paused


def test_without_an_upgrade_it_is_426(shared: Server):
    answer = httpx.get(f"{shared.url}/stream")
    assert (answer.status_code, answer.json()["code"]) == (426, "upgrade_required")
    assert answer.headers["upgrade"] == "websocket"


def test_elsewhere_an_upgrade_is_ignored(shared: Server):
    headers = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    assert httpx.get(f"{shared.url}/healthz", headers=headers).status_code == 200
    assert httpx.get(f"{shared.url}/absent", headers=headers).json()["code"] == "not_found"


@pytest.mark.parametrize("origin", ["https://example.com", "http://[", "null"])
def test_a_page_from_elsewhere_is_refused(shared: Server, origin: str):
    status, document = refusal(shared, {"origin": origin}, model="stream")
    assert (status, document["code"]) == (403, "foreign_origin")
    with opened(shared, {"origin": shared.url}, model="stream") as stream:
        assert stream.opening["event"] == "open"


def test_a_key_is_wanted_as_everywhere(bundle: Bundle, models: Path):
    with serving(create_app(settings(models, api_keys=KEY)), ready=False) as server:
        while not httpx.get(f"{server.url}/readyz").is_success:
            pass
        status, document = refusal(server)
        assert (status, document["code"]) == (401, "unauthorized")
        for headers in ({"authorization": f"Bearer {KEY}"}, {"x-api-key": KEY}):
            with opened(server, headers) as stream:
                assert stream.opening["model"] == "stream"


@pytest.mark.parametrize("limit", [{"max_streams": 1}, {"max_stream_bytes": 500}])
def test_there_are_no_more_streams_than_may_be(bundle: Bundle, models: Path, limit: dict[str, int]):
    with serving(create_app(settings(models, **limit))) as server:
        with opened(server) as stream:
            assert metric(server, "streams_open") == 1
            assert refusal(server)[1]["code"] == "too_many_streams"
            stream.say(end=True)
            stream.event()
            assert stream.closed() == 1000
        nothing_left(server)
        assert metric(server, "streams_open") == 0
        with opened(server):
            pass


CHUNK = np.zeros((CHUNK_STEPS, FEATURES), np.float32)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"no array", "malformed_body"),
        ("no object", "malformed_body"),
        ("[1]", "malformed_body"),
        ("{}", "invalid_field"),
        ('{"inputs": [[1]]}', "wrong_shape"),
        ('{"inputs": [[1, 2, 3, 4], [1]]}', "wrong_shape"),
        ('{"inputs": "x"}', "wrong_shape"),
        ('{"inputs": [["a", 2, 3, 4], [1, 2, 3, 4]]}', "wrong_dtype"),
        ('{"inputs": ["' + "a" * 1000 + '", [1, 2, 3, 4]]}', "wrong_dtype"),
        ('{"inputs": [[1e39, 2, 3, 4], [1, 2, 3, 4]]}', "not_finite"),
        ('{"end": 1}', "invalid_field"),
        ('{"deadline_ms": -1}', "invalid_deadline"),
        ('{"unknown": 1}', "invalid_field"),
        (CHUNK[:1], "wrong_shape"),
        (np.full_like(CHUNK, np.nan), "not_finite"),
        (np.full_like(CHUNK, np.inf), "not_finite"),
        (CHUNK > 0, "wrong_dtype"),
    ],
)
def test_a_bad_message_is_told_and_ends_the_stream(shared: Server, message: Any, code: str):
    with opened(shared, model="stream") as stream:
        stream.send(chunks(sequences(1)[0])[0])
        if isinstance(message, np.ndarray):
            event = stream.send(message)
        else:
            stream.wire.send(message)
            event = stream.event()
        assert (event["event"], event["code"], event["steps_seen"]) == ("error", code, CHUNK_STEPS)
        assert event["detail"].endswith(".")
        assert stream.closed() == 1007


def test_a_message_that_is_too_large_ends_the_stream(shared: Server):
    with opened(shared, model="stream") as stream:
        stream.wire.send(b"x" * 5000)
        assert stream.closed() == 1009


def test_who_says_nothing_is_sent_away(bundle: Bundle, models: Path):
    with serving(create_app(settings(models, stream_idle_s=0.05))) as server:
        with opened(server) as stream:
            event = stream.event()
            assert (event["event"], event["code"]) == ("error", "stream_idle")
            assert stream.closed() == 1008
        nothing_left(server)
        assert metric(server, "streams_ended_total", model="stream/1", ended_by="idle") == 1


def test_beyond_the_number_of_connections_there_is_no_upgrade(bundle: Bundle, models: Path):
    with serving(create_app(settings(models, max_connections=1))) as server, opened(server):
        with pytest.raises(InvalidStatus) as caught, opened(server):
            pass
        assert caught.value.response.status_code == 503
        assert json.loads(caught.value.response.body)["code"] == "too_many_connections"


# What goes wrong


def test_a_client_that_hangs_up_leaves_nothing(bundle: Bundle, models: Path):
    executor = HeldExecutor(held=1)
    with serving(create_app(settings(models), executor=executor)) as server:
        with opened(server) as stream:
            stream.wire.send(json.dumps({"inputs": sequences(1)[0][:CHUNK_STEPS].tolist()}))
            assert executor.entered.wait(60)
            stream.wire.socket.shutdown(socket.SHUT_RDWR)
        while len(server.context.streams):
            httpx.get(f"{server.url}/readyz")
        executor.release.set()
        nothing_left(server)
        assert executor.members_run == [0, 1], "no further member is started for it"
        assert metric(server, "streams_ended_total", model="stream/1", ended_by="hung_up") == 1
        assert metric(server, "ended_total", outcome="cancelled") == 1


def test_what_a_stream_still_owes_when_it_ends_is_not_caught_up(bundle: Bundle, models: Path):
    executor = HeldExecutor(held=1)
    with serving(create_app(settings(models), executor=executor)) as server:
        with opened(server, deadline_ms=300) as stream:
            event = stream.send(chunks(sequences(1)[0])[0])
            assert executor.entered.wait(60)
            assert (event["members_used"], event["stopped_by"]) == (1, "deadline")
            stream.say(end=True)
            assert stream.event()["ended_by"] == "end"
            assert stream.closed() == 1000
        while len(server.context.streams):
            httpx.get(f"{server.url}/readyz")
        executor.release.set()
        nothing_left(server)
        assert executor.members_run == [0, 1]


def test_a_client_that_closes_between_chunks_leaves_nothing(shared: Server):
    with opened(shared, model="stream") as stream:
        stream.send(chunks(sequences(1)[0])[0])
    nothing_left(shared)


@pytest.mark.parametrize("nan", [False, True])
def test_a_first_member_that_fails_ends_the_stream(bundle: Bundle, models: Path, nan: bool):
    executor = FailingExecutor(0, lambda ticket: ticket.part is not None, nan=nan)
    with serving(create_app(settings(models), executor=executor)) as server:
        with opened(server) as stream:
            event = stream.send(chunks(sequences(1)[0])[0])
            assert (event["event"], event["code"], event["status"]) == ("error", "member_failed", 500)
            assert "secret" not in json.dumps(event)
            assert stream.closed() == 1011
        nothing_left(server)
        assert metric(server, "stream_chunks_total", model="stream/1", outcome="unanswered") == 1
        assert metric(server, "stream_chunks_total", model="stream/1", outcome="answered") == 0


@pytest.mark.parametrize("nan", [False, True])
def test_a_later_member_that_fails_once_is_caught_up(bundle: Bundle, models: Path, nan: bool):
    x = sequences(1)[0]
    bad = chunks(x)[0]
    executor = FailingExecutor(1, lambda ticket: np.array_equal(ticket.inputs[0], bad), nan=nan)
    with serving(create_app(settings(models), executor=executor)) as server:
        with opened(server, outputs="logits") as stream:
            event = stream.send(bad)
            assert (event["members_used"], event["stopped_by"]) == (1, "member_failed")
            event = stream.send(chunks(x)[1])
            assert event["members_used"] == 3
            expected = reference(bundle, x)[2 * CHUNK_STEPS, 3]
            np.testing.assert_allclose(event["logits"], expected, rtol=1e-5, atol=1e-5)
        nothing_left(server)


def test_a_bundle_that_is_replaced_serves_its_open_streams_to_the_end(bundle: Bundle, models: Path):
    x = sequences(1)[0]
    with serving(create_app(settings(models))) as server:
        with opened(server, outputs="logits") as stream:
            stream.send(chunks(x)[0])
            write_stream(models, members=2)
            assert httpx.post(f"{server.url}/models/stream/load").json()["version"] == 2
            with opened(server) as new:
                assert (new.opening["version"], new.opening["members_total"]) == (2, 2)
            event = stream.send(chunks(x)[1])
            assert event["members_used"] == 3
            event = stream.send(chunks(x)[2])
            np.testing.assert_allclose(event["logits"], reference(bundle, x)[STEPS, 3], rtol=1e-5, atol=1e-5)
            assert stream.closed() == 1000
        nothing_left(server)
        while metric(server, "model_loads_total", outcome="unloaded") < 1:
            httpx.get(f"{server.url}/readyz")
        assert "stream/1/stream" not in server.context.worker._manifests
        assert 'model="stream/1' not in httpx.get(f"{server.url}/metrics").text


def test_when_the_service_stops_open_streams_get_their_last_answer(bundle: Bundle, models: Path):
    x = sequences(1)[0]
    with serving(create_app(settings(models))) as server, opened(server) as stream, opened(server) as silent:
        answer = stream.send(chunks(x)[0])
        server.terminate()
        assert stream.event() == {**answer, "event": "final", "ended_by": "shutdown"}
        assert stream.closed() == 1001
        assert silent.event()["members_used"] == 0
        assert silent.closed() == 1001


def test_when_the_service_stops_the_chunk_in_flight_is_answered(bundle: Bundle, models: Path):
    executor = HeldExecutor(held=1)
    with serving(create_app(settings(models), executor=executor)) as server, opened(server) as stream:
        stream.say(inputs=sequences(1)[0][:CHUNK_STEPS].tolist())
        assert executor.entered.wait(60)
        server.terminate()
        while not server.context.draining:
            assert server.context.worker.alive
        executor.release.set()
        event = stream.event()
        assert (event["event"], event["members_used"]) == ("chunk", 3)
        assert stream.event() == {**event, "event": "final", "ended_by": "shutdown"}
        assert stream.closed() == 1001


def test_when_the_drain_is_over_the_chunk_in_flight_is_answered_with_what_there_is(bundle: Bundle, models: Path):
    executor = HeldExecutor(held=1)
    with serving(create_app(settings(models, drain_s=0.05), executor=executor)) as server, opened(server) as stream:
        stream.say(inputs=sequences(1)[0][:CHUNK_STEPS].tolist())
        assert executor.entered.wait(60)
        server.terminate()
        event = stream.event()
        assert (event["members_used"], event["stopped_by"]) == (1, "shutdown")
        assert stream.event()["ended_by"] == "shutdown"
        assert stream.closed() == 1001
        executor.release.set()


def test_after_the_head_nothing_of_the_connection_is_timed(bundle: Bundle, models: Path):
    """Neither its head nor its body can be late any more."""
    changes = {"head_timeout_s": 0.05, "body_timeout_s": 0.05, "stream_idle_s": 0.5}
    with serving(create_app(settings(models, **changes))) as server, opened(server) as stream:
        assert stream.event()["code"] == "stream_idle"
        with pytest.raises(ConnectionClosed):
            stream.wire.recv(timeout=60)


class Killed(BaseException):
    """No exception: it ends the device thread."""


def kill() -> None:
    raise Killed


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_when_the_device_is_restarted_open_streams_get_their_last_answer(bundle: Bundle, models: Path):
    with serving(create_app(settings(models))) as server:
        with opened(server) as stream:
            answer = stream.send(chunks(sequences(1)[0])[0])
            with pytest.raises(Killed):
                server.context.worker.call(kill).result(60)
            assert stream.event() == {**answer, "event": "final", "ended_by": "shutdown"}
            assert stream.closed() == 1001
        while not httpx.get(f"{server.url}/readyz").is_success:
            pass
        with opened(server) as stream:
            assert stream.send(chunks(sequences(1)[0])[0])["members_used"] == 3
        nothing_left(server)


def upgrade(server: Server, *lines: bytes) -> socket.socket:
    """A WebSocket by hand, its answer unread."""
    wire = socket.create_connection(httpx.URL(server.url).netloc.decode().split(":"), timeout=60)
    key = b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==", b"sec-websocket-version: 13"
    head = [b"GET /stream?model=stream HTTP/1.1", b"host: x", b"connection: upgrade", b"upgrade: websocket", *key]
    wire.sendall(b"\r\n".join([*head, *lines, b"", b""]))
    return wire


def test_a_head_that_websockets_does_not_take_is_400(shared: Server):
    with upgrade(shared, b"x-long: " + b"x" * 10_000) as wire:
        assert wire.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_a_frame_that_is_none_ends_the_stream(shared: Server):
    with upgrade(shared) as wire:
        assert wire.recv(1000).startswith(b"HTTP/1.1 101 ")
        wire.sendall(b"\xff\xff\xff\xff")
        while wire.recv(1000):
            pass
    nothing_left(shared)


def test_who_reads_nothing_is_cut_off(bundle: Bundle, models: Path):
    ping = b"\x89\xfd" + bytes(4) + bytes(125)
    with serving(create_app(settings(models, send_timeout_s=0.05))) as server:
        with upgrade(server) as wire, pytest.raises(OSError):
            while True:
                wire.sendall(ping * 100)
        nothing_left(server)
