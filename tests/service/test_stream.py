"""GET /stream on a real server: real members, real WebSockets; where time matters, a clock that the test moves."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bundle import Bundle
from bundle.exits import confidence
from bundle.reference import running_average, running_average_chunks
from service.app import create_app
from service.engine import scheduler
from service.settings import Settings
from tests.fakes import FailingExecutor, FakeClock, HeldExecutor, SteppedExecutor, TimedExecutor
from tests.service.server import Server, serving
from tests.service.sockets import opened
from tests.tiny import write_tiny
from tests.tiny_stream import CHUNK_STEPS, FEATURES, STEPS, sequences, write_stream

MEMBER_S = 10.0
"""What a run takes on the fake clock: far more than anything takes in truth, so that no real delay matters."""
KEY = "a-key-of-some-length"
CHUNKS = STEPS // CHUNK_STEPS


def settings(models: Path, **changes: Any) -> Settings:
    return Settings(models_dir=models, device="cpu", cpu_threads=1, max_batch_rows=8, models=("stream",), **changes)


@pytest.fixture
def bundle(models: Path) -> Bundle:
    return write_stream(models)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that leave nothing behind."""
    models = tmp_path_factory.mktemp("models")
    write_stream(models)
    write_tiny(models)
    with serving(create_app(settings(models, max_message_bytes=4000).model_copy(update={"models": ()}))) as running:
        yield running
        nothing_left(running)


def nothing_left(server: Server) -> None:
    """No stream, no request, no lease, and nothing that the device still works on."""
    while len(server.context.streams) or server.context.gate.requests_in_flight:
        httpx.get(f"{server.url}/readyz")
    server.idle()
    assert server.context.streams._size == 0
    assert server.context.worker._unsettled == set()
    assert not server.context.worker._scheduler._arrears
    assert [one.leases for one in server.context.deployments.all()] == [0] * len(server.context.deployments.all())


def metric(server: Server, name: str, **labels: str) -> float:
    return server.context.metrics.registry.get_sample_value(f"anytime_{name}", labels) or 0.0


def chunks(x: np.ndarray) -> list[np.ndarray]:
    return [x[at : at + CHUNK_STEPS] for at in range(0, len(x), CHUNK_STEPS)]


def reference(bundle: Bundle, x: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    return {(one.steps, one.members): one.logits[0] for one in running_average_chunks(bundle, x[None])}


def bundle_of(server: Server) -> Bundle:
    return server.context.deployments.find("stream").bundle


# What is answered


def test_each_chunk_is_answered_and_the_last_answer_is_that_of_the_whole_sequence(shared: Server):
    bundle, x = bundle_of(shared), sequences(1)[0]
    expected = reference(bundle, x)
    with opened(shared, model="stream", outputs="logits,probabilities") as stream:
        assert stream.opening == {
            "event": "open",
            "model": "stream",
            "version": 1,
            "request_id": stream.wire.response.headers["x-request-id"],
            "chunk": {"dtype": "float32", "shape": [CHUNK_STEPS, FEATURES]},
            "steps_total": STEPS,
            "members_total": 3,
        }
        for number, chunk in enumerate(chunks(x), 1):
            event = stream.send(chunk)
            last = number == CHUNKS
            assert event["event"] == ("final" if last else "chunk")
            assert (event["steps"], event["steps_seen"]) == (number * CHUNK_STEPS,) * 2
            assert (event["members_used"], event["stopped_by"]) == (3, "complete")
            assert (event["ended_by"], event["problem"]) == ("complete" if last else None, None)
            logits = np.array(event["logits"], np.float32)
            np.testing.assert_allclose(logits, expected[number * CHUNK_STEPS, 3], rtol=1e-5, atol=1e-5)
            assert event["class"] == bundle.manifest.classes[logits.argmax()]
            assert event["confidence"] == pytest.approx(confidence(logits[None], 1.0)[0])
            assert event["confidence"] == pytest.approx(max(event["probabilities"]), abs=1e-6)
        assert stream.closed() == 1000
    *_, whole = running_average(bundle, x[None])
    np.testing.assert_allclose(logits, whole[0], rtol=1e-5, atol=1e-5)


def test_numbers_as_json_are_the_same_chunk(shared: Server):
    x = sequences(1)[0]
    with opened(shared, model="stream") as binary, opened(shared, model="stream") as text:
        for chunk in chunks(x):
            text.say(inputs=chunk.tolist())
            timeless = [{**event, "elapsed_ms": 0} for event in (binary.send(chunk), text.event())]
            assert timeless[0] == timeless[1]


def test_a_confident_answer_ends_the_stream(shared: Server):
    x = sequences(1)[0]
    with opened(shared, model="stream") as stream:
        certain = [stream.send(chunk)["confidence"] for chunk in chunks(x)]
    wanted = certain[1]
    assert certain[0] < wanted
    before = metric(shared, "stream_exit_steps_count", model="stream/1")
    with opened(shared, model="stream", exit_confidence=wanted - 1e-6) as stream:
        events = []
        for chunk in chunks(x):
            events.append(stream.send(chunk))
            if events[-1]["event"] == "final":
                break
        assert stream.closed() == 1000
    assert events[-1]["ended_by"] == "exit_confidence"
    assert events[-1]["confidence"] >= wanted - 1e-6
    assert events[-1]["steps"] <= 2 * CHUNK_STEPS < STEPS
    nothing_left(shared)
    assert metric(shared, "stream_exit_steps_count", model="stream/1") == before + 1


def test_a_prefix_that_is_confident_spares_the_other_members(shared: Server):
    with opened(shared, model="stream", exit_confidence=0.01) as stream:
        event = stream.send(sequences(1)[0][:CHUNK_STEPS])
        assert (event["members_used"], event["stopped_by"]) == (1, "exit_confidence")
        assert (event["event"], event["ended_by"]) == ("final", "exit_confidence")
        assert stream.closed() == 1000


def test_the_client_may_end_it(shared: Server):
    x = sequences(1)[0]
    with opened(shared, model="stream") as stream:
        answer = stream.send(chunks(x)[0])
        stream.say(end=True)
        assert stream.event() == {**answer, "event": "final", "ended_by": "end"}
        assert stream.closed() == 1000
    with opened(shared, model="stream") as stream:
        stream.say(inputs=chunks(x)[0].tolist(), end=True)
        event = stream.event()
        assert (event["event"], event["steps"], event["ended_by"]) == ("final", CHUNK_STEPS, "end")
    with opened(shared, model="stream") as stream:
        stream.say(end=True)
        event = stream.event()
        assert (event["steps"], event["members_used"], event["class"], event["elapsed_ms"]) == (0, 0, None, None)


def test_chunks_that_come_at_once_are_answered_in_order(shared: Server):
    with opened(shared, model="stream") as stream:
        for chunk in chunks(sequences(1)[0]):
            stream.say(inputs=chunk.tolist())
        assert [stream.event()["steps"] for _ in range(CHUNKS)] == [2, 4, 6]


# Time


def timed(bundle: Bundle, models: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[FakeClock, TimedExecutor, Any]:
    # A rehearsal between decision and answer would move the clock by a member's duration.
    monkeypatch.setattr(scheduler, "REHEARSAL_INTERVAL_S", 1e6)
    clock = FakeClock()
    executor = TimedExecutor(clock, lambda step: MEMBER_S)
    app = create_app(settings(models, reserve_ms=1000.0), executor=executor, clock=clock)
    return clock, executor, app


def test_members_left_behind_by_a_deadline_catch_up_and_the_answer_is_exact(
    bundle: Bundle, models: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scheduler.Arrears, "add", lambda self, ticket: None)  # The device is never idle.
    _, _, app = timed(bundle, models, monkeypatch)
    x = sequences(1)[0]
    expected = reference(bundle, x)
    with serving(app) as server:
        with opened(server, deadline_ms=11_500, outputs="logits") as stream:
            # In runs, less a reserve: 1, then 3, then all.
            for chunk, runs, members in zip(chunks(x), (1.15, 3.15, 1e3), (1, 2, 3), strict=True):
                stream.say(inputs=chunk.tolist(), deadline_ms=min(runs * MEMBER_S * 1e3, 600_000))
                event = stream.event()
                assert (event["members_used"], event["stopped_by"]) == (
                    members,
                    "complete" if members == 3 else "deadline",
                )
                np.testing.assert_allclose(event["logits"], expected[event["steps"], members], rtol=1e-5, atol=1e-5)
            assert (event["event"], event["elapsed_ms"]) == ("final", 5 * MEMBER_S * 1e3)
        nothing_left(server)
    *_, whole = running_average(bundle, x[None])
    np.testing.assert_allclose(event["logits"], whole[0], rtol=1e-5, atol=1e-5)


def test_idle_time_between_chunks_catches_members_up(bundle: Bundle, models: Path, monkeypatch: pytest.MonkeyPatch):
    _, executor, app = timed(bundle, models, monkeypatch)
    x = sequences(1)[0]
    with serving(app) as server, opened(server, deadline_ms=11_500) as stream:
        assert stream.send(chunks(x)[0])["members_used"] == 1
        server.idle()
        executor.steps.clear()
        # Catching up has moved the clock before the answer went out: the reserve has learned that. Time is plenty.
        stream.say(inputs=chunks(x)[1].tolist(), deadline_ms=300_000)
        assert stream.event()["members_used"] == 3
        assert [step.member for step in executor.steps] == [0, 1, 2]


def test_a_chunk_that_cannot_be_answered_is_told_and_not_lost(
    bundle: Bundle, models: Path, monkeypatch: pytest.MonkeyPatch
):
    _, _, app = timed(bundle, models, monkeypatch)
    x = sequences(1)[0]
    with serving(app) as server:
        with opened(server, deadline_ms=5_000, outputs="logits") as stream:
            event = stream.send(chunks(x)[0])
            assert (event["event"], event["problem"]["code"]) == ("chunk", "no_prefix_in_time")
            assert (event["steps"], event["steps_seen"], event["members_used"]) == (0, CHUNK_STEPS, 0)
            stream.say(inputs=chunks(x)[1].tolist(), deadline_ms=500_000)
            event = stream.event()
            np.testing.assert_allclose(event["logits"], reference(bundle, x)[2 * CHUNK_STEPS, 3], rtol=1e-5, atol=1e-5)
            stream.say(inputs=chunks(x)[2].tolist(), deadline_ms=5_000)
            last = stream.event()
            assert (last["event"], last["ended_by"]) == ("final", "complete")
            assert (last["steps"], last["steps_seen"]) == (2 * CHUNK_STEPS, STEPS)
            assert (last["logits"], last["problem"]["code"]) == (event["logits"], "no_prefix_in_time")
            assert stream.closed() == 1000
        nothing_left(server)
        assert metric(server, "stream_chunks_total", model="stream/1", outcome="unanswered") == 2
        assert metric(server, "stream_chunks_total", model="stream/1", outcome="answered") == 1


def test_a_member_that_overruns_does_not_hold_the_answer_back(bundle: Bundle, models: Path):
    executor = HeldExecutor(held=1)
    x = sequences(1)[0]
    with serving(create_app(settings(models), executor=executor)) as server:
        with opened(server, deadline_ms=300, outputs="logits") as stream:
            # Only the timer can have sent it.
            event = stream.send(chunks(x)[0])
            assert (event["members_used"], event["stopped_by"]) == (1, "deadline")
            executor.release.set()
            stream.say(inputs=chunks(x)[1].tolist(), deadline_ms=60_000)
            event = stream.event()
            expected = reference(bundle, x)[2 * CHUNK_STEPS, 3]
            np.testing.assert_allclose(event["logits"], expected, rtol=1e-5, atol=1e-5)
        nothing_left(server)


def test_two_streams_share_steps(bundle: Bundle, models: Path):
    executor = SteppedExecutor()
    x = sequences(2)
    with serving(create_app(settings(models), executor=executor)) as server:
        with opened(server) as one, opened(server) as other, ThreadPoolExecutor(2) as pool:
            # The first member's first step holds one of them; both wait when it ends.
            first = pool.submit(one.send, chunks(x[0])[0])
            while not server.context.gate.requests_in_flight:
                server.context.costs.typical("stream/1", 0, 1)
            second = pool.submit(other.send, chunks(x[1])[0])
            while server.context.gate.requests_in_flight < 2:
                server.context.costs.typical("stream/1", 0, 1)
            for _ in range(6):
                executor.go.release()
            answers = [first.result(60), second.result(60)]
        nothing_left(server)
        joint = sum(
            metric(server, "batch_rows_sum", model="stream/1/stream", member=str(member)) for member in range(3)
        )
        steps = sum(
            metric(server, "batch_rows_count", model="stream/1/stream", member=str(member)) for member in range(3)
        )
    assert (joint, steps) == (6, 4), "members 1 and 2 ran on both at once"
    assert [answer["members_used"] for answer in answers] == [3, 3]


# What is refused


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


def test_without_an_upgrade_it_is_426(shared: Server):
    answer = httpx.get(f"{shared.url}/stream")
    assert (answer.status_code, answer.json()["code"]) == (426, "upgrade_required")
    assert answer.headers["upgrade"] == "websocket"


def test_elsewhere_an_upgrade_is_ignored(shared: Server):
    headers = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    assert httpx.get(f"{shared.url}/healthz", headers=headers).status_code == 200
    assert httpx.get(f"{shared.url}/absent", headers=headers).json()["code"] == "not_found"


def test_a_page_from_elsewhere_is_refused(shared: Server):
    status, document = refusal(shared, {"origin": "https://example.com"}, model="stream")
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
