"""GET /stream on a real server: real members, real WebSockets; where time matters, a clock that the test moves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle import Bundle
from bundle.exits import confidence
from bundle.reference import running_average
from service.app import create_app
from service.engine import scheduler
from tests.fakes import FakeClock, HeldExecutor, SteppedExecutor, TimedExecutor
from tests.service.server import Server, serving
from tests.service.streams.sockets import (
    bundle_of,
    chunks,
    metric,
    nothing_left,
    opened,
    reference,
    settings,
)
from tests.tiny_stream import CHUNK_STEPS, FEATURES, STEPS, sequences

MEMBER_S = 10.0
"""What a run takes on the fake clock: far more than anything takes in truth, so that no real delay matters."""
CHUNKS = STEPS // CHUNK_STEPS


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
