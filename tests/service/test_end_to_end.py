"""A real uvicorn on loopback, real members, real HTTP; where time matters, a clock that the test moves."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from bundle import Bundle
from bundle.exits import members_used
from bundle.reference import running_average
from service.app import create_app
from service.client import AnytimeClient, AnytimeError, AsyncAnytimeClient
from service.engine import scheduler
from service.engine.cpu import CpuExecutor
from service.schemas import PredictResponse
from service.settings import Settings
from tests.fakes import FailingExecutor, FakeClock, HeldExecutor, TimedExecutor
from tests.service.server import Server, serving
from tests.tiny import samples, write_tiny

MEMBER_S = 10.0
"""What a member takes on the fake clock: far more than anything takes in truth, so that no real delay matters."""


def settings(models: Path, **changes: Any) -> Settings:
    return Settings(models_dir=models, device="cpu", cpu_threads=1, max_batch_rows=8, **changes)


@pytest.fixture
def server(tiny: Bundle, models: Path) -> Iterator[Server]:
    with serving(create_app(settings(models, max_rows=32, max_body_bytes=20_000))) as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that only send it something bad."""
    models = tmp_path_factory.mktemp("models")
    write_tiny(models)
    with serving(create_app(settings(models, max_rows=32, max_body_bytes=20_000))) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[AnytimeClient]:
    with AnytimeClient(server.url) as one:
        yield one


def logits_of(answer: Any) -> np.ndarray:
    return np.array([one.logits for one in answer.predictions], np.float32)


# The deadline


def test_at_every_deadline_the_answer_is_the_reference_prefix_that_fits(
    tiny: Bundle, models: Path, monkeypatch: pytest.MonkeyPatch
):
    # A rehearsal between decision and answer would move the clock by a member's duration.
    monkeypatch.setattr(scheduler, "REHEARSAL_INTERVAL_S", 1e6)
    clock = FakeClock()
    app = create_app(
        settings(models, reserve_ms=1000.0), executor=TimedExecutor(clock, lambda step: MEMBER_S), clock=clock
    )
    x = samples(3)
    prefixes = list(running_average(tiny, x))
    with serving(app) as server, AnytimeClient(server.url) as client:
        for deadline_s in (5, 10.5, 11.5, 20.5, 21.5, 30.5, 31.5, 500):
            fitting = min(3, int((deadline_s - 1.0) // MEMBER_S))
            if not fitting:
                with pytest.raises(AnytimeError, match="the first takes about 1e\\+04 ms") as caught:
                    client.predict(x, deadline_ms=deadline_s * 1e3)
                assert (caught.value.status, caught.value.code) == (504, "no_prefix_in_time")
                assert caught.value.document["first_member_ms"] == MEMBER_S * 1e3
                continue
            answer = client.predict(x, deadline_ms=deadline_s * 1e3, outputs=["logits"])
            assert answer.members_used == fitting
            assert answer.stopped_by == ("complete" if fitting == 3 else "deadline")
            assert answer.elapsed_ms == fitting * MEMBER_S * 1e3 <= deadline_s * 1e3
            assert answer.expected_accuracy == tiny.manifest.prefixes[fitting - 1].accuracy
            np.testing.assert_allclose(logits_of(answer), prefixes[fitting - 1], atol=1e-5)


@pytest.mark.parametrize("held", [1, 2])
def test_a_member_that_overruns_does_not_hold_the_answer_back(tiny: Bundle, models: Path, held: int):
    executor = HeldExecutor(held)
    x = samples(2)
    with serving(create_app(settings(models), executor=executor)) as server, AnytimeClient(server.url) as client:
        # The answer comes although the member never ends before it: only the timer can have sent it.
        answer = client.predict(x, deadline_ms=300, outputs=["logits"])
        assert executor.entered.is_set()
        assert held not in executor.members_run
        executor.release.set()
        server.idle()
        assert executor.members_run == list(range(held + 1)), "no further member is started for it"
    assert (answer.members_used, answer.stopped_by) == (held, "deadline")
    np.testing.assert_allclose(logits_of(answer), list(running_average(tiny, x))[held - 1], atol=1e-5)


def test_a_first_member_that_overruns_is_a_504_at_the_deadline(tiny: Bundle, models: Path):
    executor = HeldExecutor(0)
    with serving(create_app(settings(models), executor=executor)) as server, AnytimeClient(server.url) as client:
        with pytest.raises(AnytimeError) as caught:
            client.predict(samples(1), deadline_ms=100)
        assert 0 not in executor.members_run
        executor.release.set()
    assert (caught.value.status, caught.value.code) == (504, "no_prefix_in_time")


def test_a_hang_up_frees_the_work_before_the_next_member(tiny: Bundle, models: Path):
    executor = HeldExecutor(0)
    with serving(create_app(settings(models), executor=executor)) as server:
        body = json.dumps({"inputs": samples(1).tolist()}).encode()
        with socket.create_connection(httpx.URL(server.url).netloc.decode().split(":")) as wire:
            wire.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
            assert executor.entered.wait(60)
        while server.context.gate.requests_in_flight:
            with AnytimeClient(server.url) as other:
                other.ready()
        executor.release.set()
        server.idle()
        assert executor.members_run == [0]


# What is answered


def test_without_a_deadline_all_members_are_run(tiny: Bundle, client: AnytimeClient):
    x = samples(4)
    answer = client.predict(x, outputs=["probabilities", "logits"])
    *_, expected = running_average(tiny, x)
    assert (answer.model, answer.version, answer.members_used, answer.members_total) == ("tiny", 1, 3, 3)
    assert (answer.stopped_by, answer.deadline_ms) == ("complete", None)
    np.testing.assert_allclose(logits_of(answer), expected, atol=1e-5)
    for one, row in zip(answer.predictions, expected, strict=True):
        probabilities = np.exp(row) / np.exp(row).sum()
        np.testing.assert_allclose(one.probabilities, probabilities, atol=1e-5)
        assert one.index == row.argmax()
        assert one.class_ == tiny.manifest.classes[one.index]
        assert one.confidence == pytest.approx(probabilities.max(), abs=1e-5)


def test_samples_that_leave_early_say_after_how_many_members(tiny: Bundle, client: AnytimeClient):
    x = samples(16)
    request = {"inputs": x.tolist(), "exit_confidence": 0.9, "outputs": ["logits"]}
    answer = PredictResponse.model_validate(client._http.post("/predict", json=request).raise_for_status().json())
    prefixes = list(running_average(tiny, x))
    used = members_used(prefixes, [1.0] * 3, [0.9] * 2)
    assert [one.members_used for one in answer.predictions] == used.tolist()
    expected = [prefixes[members - 1][row] for row, members in enumerate(used)]
    np.testing.assert_allclose(logits_of(answer), expected, atol=1e-5)
    assert answer.expected_accuracy == pytest.approx(np.mean([0.65 + 0.05 * members for members in used]))
    told = client.feedback(answer.request_id, [one.index for one in answer.predictions])
    assert (told.members_used, told.correct) == (3, 16)


@pytest.mark.parametrize(
    ("knobs", "members", "stopped_by"),
    [({"target_accuracy": 0.75}, 2, "target_accuracy"), ({"exit_confidence": 0.1}, 1, "exit_confidence")],
)
def test_what_ended_a_request_is_said(client: AnytimeClient, knobs: dict[str, float], members: int, stopped_by: str):
    answer = client._http.post("/predict", json={"inputs": samples(2).tolist(), **knobs}).json()
    assert (answer["members_used"], answer["stopped_by"]) == (members, stopped_by)


def test_a_risk_without_a_rule_is_refused(client: AnytimeClient):
    response = client._http.post("/predict", json={"inputs": samples(1).tolist(), "exit_risk": 0.1})
    assert (response.status_code, response.json()["code"]) == (422, "no_exit_rule")


@pytest.mark.parametrize("members", [1, 2])
def test_max_members_is_a_prefix(tiny: Bundle, client: AnytimeClient, members: int):
    x = samples(2)
    answer = client.predict(x, max_members=members, outputs=["logits"])
    assert (answer.members_used, answer.stopped_by) == (members, "max_members")
    np.testing.assert_allclose(logits_of(answer), list(running_average(tiny, x))[members - 1], atol=1e-5)


def test_by_default_a_prediction_is_class_index_and_confidence(server: Server):
    response = httpx.post(f"{server.url}/predict", json={"inputs": samples(1).tolist(), "max_members": 99})
    (prediction,) = response.json()["predictions"]
    assert set(prediction) == {"class", "index", "confidence"}
    assert response.json()["stopped_by"] == "complete"


def test_many_at_once_each_get_their_own_rows(tiny: Bundle, client: AnytimeClient):
    def one(seed: int) -> bool:
        x = samples(1 + seed % 5, seed)
        answer = client.predict(x, outputs=["logits"], max_members=1 + seed % 3)
        expected = list(running_average(tiny, x))[seed % 3]
        return bool(np.allclose(logits_of(answer), expected, atol=1e-5))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(60)))


def test_a_failing_member_leaves_the_earlier_prefix(tiny: Bundle, models: Path):
    app = create_app(settings(models), executor=FailingExecutor(1, lambda _: True))
    with serving(app) as server, AnytimeClient(server.url) as client:
        answer = client.predict(samples(1))
    assert (answer.members_used, answer.stopped_by) == (1, "member_failed")


def test_a_failing_first_member_is_a_500_that_tells_nothing_internal(tiny: Bundle, models: Path):
    app = create_app(settings(models), executor=FailingExecutor(0, lambda one: one.request_id == "evil"))
    with serving(app) as server, AnytimeClient(server.url) as client:
        with pytest.raises(AnytimeError) as caught:
            client.predict(samples(1), request_id="evil")
        assert client.predict(samples(1)).stopped_by == "complete"
    assert (caught.value.status, caught.value.code) == (500, "member_failed")
    assert "secret" not in json.dumps(dict(caught.value.document))


# What is refused


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed_body"),
        (b"{", 400, "malformed_body"),
        (b"[1, 2]", 400, "malformed_body"),
        (b'{"inputs": [[NaN, 1, 2, 3]]}', 400, "malformed_body"),
        (b"{}", 422, "invalid_field"),
        (b'{"inputs": [[1, 2, 3, 4]], "dead_line": 3}', 422, "invalid_field"),
        (b'{"inputs": [[1, 2, 3, 4]], "deadline_ms": "50"}', 422, "invalid_field"),
        (b'{"inputs": [[1, 2, 3, 4]], "max_members": 0}', 422, "invalid_field"),
        (b'{"inputs": [[1, 2, 3, 4]], "outputs": ["weights"]}', 422, "invalid_field"),
        (b'{"inputs": [[1, 2, 3, 4]], "deadline_ms": 0}', 422, "invalid_deadline"),
        (b'{"inputs": [[1, 2, 3, 4]], "deadline_ms": -3}', 422, "invalid_deadline"),
        (b'{"inputs": [[1, 2, 3, 4]], "deadline_ms": 1e12}', 422, "invalid_deadline"),
        (b'{"inputs": [[1, 2, 3, 4]], "model": "absent"}', 404, "unknown_model"),
        (b'{"inputs": [[1, 2, 3, 4]], "version": 7}', 404, "unknown_version"),
        (b'{"inputs": []}', 422, "empty_batch"),
        (b'{"inputs": [[1, 2]]}', 422, "wrong_shape"),
        (b'{"inputs": [["1", "2", "3", "4"]]}', 422, "wrong_dtype"),
        (b'{"inputs": [[true, 2, 3, 4]]}', 422, "wrong_dtype"),
        (b'{"inputs": [[1e39, 2, 3, 4]]}', 422, "not_finite"),
        (json.dumps({"inputs": [[0, 0, 0, 0]] * 33}).encode(), 422, "too_many_rows"),
        (b'{"inputs": [[' + b"1," * 20_000 + b"1]]}", 413, "body_too_large"),
    ],
)
def test_a_bad_request_is_one_sentence_with_a_stable_code(shared: Server, body: bytes, status: int, code: str):
    def rejected() -> float:
        return shared.context.metrics.registry.get_sample_value("anytime_rejected_total", {"reason": code}) or 0.0

    before = rejected()
    response = httpx.post(f"{shared.url}/predict", content=body)
    document = response.json()
    assert (response.status_code, document["status"], document["code"]) == (status, status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert document["request_id"] == response.headers["x-request-id"]
    assert document["detail"].endswith(".")
    assert rejected() == before + 1


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": ["x" * 10_000, *[""] * 20]},
        {"inputs": [["1", 2, 3, 4]], "outputs": ["logits", "probabilities"], "model": None},
        {"inputs": [[1, 2, 3, "4"]], "model": 'a "quoted" name'},
    ],
)
def test_text_among_the_inputs_never_reaches_numpy(shared: Server, body: dict[str, Any]):
    document = httpx.post(f"{shared.url}/predict", json=body).json()
    assert document["code"] == "wrong_dtype"
    assert "holds text" in document["detail"]


def test_a_body_of_undeclared_length_is_cut_off(shared: Server):
    chunks = (b"1," * 1000 for _ in range(100))
    response = httpx.post(f"{shared.url}/predict", content=chunks)
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


def test_a_body_too_large_is_refused_before_it_is_sent(shared: Server):
    with socket.create_connection(httpx.URL(shared.url).netloc.decode().split(":")) as wire:
        wire.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n")
        assert wire.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/absent", 404, "not_found"),
        ("GET", "/predict", 405, "method_not_allowed"),
        ("GET", "/models/absent", 404, "unknown_model"),
        ("GET", "/models/tiny?version=x", 422, "invalid_field"),
    ],
)
def test_other_errors_are_problem_documents_too(shared: Server, method: str, path: str, status: int, code: str):
    response = httpx.request(method, shared.url + path)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert ("allow" in response.headers) == (status == 405)


def test_an_unexpected_error_is_logged_with_its_request_and_hidden(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(server.context.deployments, "find", lambda *_: 1 / 0)
    with caplog.at_level(logging.ERROR):
        response = httpx.post(
            f"{server.url}/predict", json={"inputs": [[1, 2, 3, 4]]}, headers={"x-request-id": "request-7"}
        )
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert "division" not in response.text
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.request_id == "request-7"


def test_an_unexpected_error_of_a_route_of_the_framework_is_one_too(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(server.context.repository, "load", lambda *_: 1 / 0)
    response = httpx.post(f"{server.url}/models/tiny/load", headers={"x-request-id": "request-8"})
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert response.headers["x-request-id"] == response.json()["request_id"] == "request-8"
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.request_id == "request-8"
    metrics = server.context.metrics.registry
    assert metrics.get_sample_value("anytime_rejected_total", {"reason": "internal_error"}) == 1


@pytest.mark.parametrize(
    "path", ["/models/tiny/load?verison=1", "/models/tiny/unload?version=0", "/models/tiny/unload?x"]
)
def test_a_misspelt_query_changes_nothing(shared: Server, path: str):
    response = httpx.post(shared.url + path)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_field")
    assert httpx.get(f"{shared.url}/models/tiny").is_success


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_a_version_in_the_body_changes_nothing(shared: Server, verb: str):
    response = httpx.post(f"{shared.url}/models/tiny/{verb}", json={"version": 1})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_field")
    assert "say the version in the query" in response.json()["detail"]
    assert httpx.get(f"{shared.url}/models/tiny").is_success


def test_a_version_of_hundreds_of_digits_is_not_there(shared: Server):
    response = httpx.post(f"{shared.url}/models/tiny/load?version={10**300}")
    assert (response.status_code, response.json()["code"]) == (404, "no_such_bundle")


def test_probes_may_be_asked_for_their_head(shared: Server):
    for path in ("/healthz", "/readyz"):
        response = httpx.head(shared.url + path)
        assert (response.status_code, response.content) == (200, b"")


def test_a_page_of_another_host_changes_nothing(shared: Server):
    response = httpx.post(f"{shared.url}/models/tiny/unload", headers={"origin": "http://evil.example"})
    assert (response.status_code, response.json()["code"]) == (403, "foreign_origin")
    assert httpx.get(f"{shared.url}/models/tiny").is_success


def test_a_full_queue_is_refused_with_retry_after(tiny: Bundle, models: Path):
    executor = HeldExecutor(0)
    app = create_app(settings(models, max_queue_rows=4, max_rows=4), executor=executor)
    with serving(app) as server, AnytimeClient(server.url) as client, ThreadPoolExecutor() as pool:
        first = pool.submit(client.predict, samples(3))
        assert executor.entered.wait(60)
        with pytest.raises(AnytimeError) as caught:
            client.predict(samples(2))
        executor.release.set()
        assert first.result(60).stopped_by == "complete"
    assert (caught.value.status, caught.value.code) == (503, "overloaded")
    assert caught.value.retry_after_s >= 1


def test_a_request_in_flight_is_answered_after_sigterm(tiny: Bundle, models: Path):
    executor = HeldExecutor(0)
    with ThreadPoolExecutor() as pool:
        with serving(create_app(settings(models), executor=executor)) as server, AnytimeClient(server.url) as client:
            answer = pool.submit(client.predict, samples(1))
            assert executor.entered.wait(60)
            server.terminate()
            executor.release.set()
            assert answer.result(60).stopped_by == "complete"
        assert not server.context.worker.alive


@pytest.mark.parametrize("streamed", [False, True])
def test_what_outlasts_the_drain_is_answered_early(tiny: Bundle, models: Path, streamed: bool):
    executor = HeldExecutor(1)
    app = create_app(settings(models, drain_s=0.05), executor=executor)
    with ThreadPoolExecutor() as pool, serving(app) as server, AnytimeClient(server.url) as client:

        def last() -> Any:
            return list(client.predict_stream(samples(1)))[-1] if streamed else client.predict(samples(1))

        answer = pool.submit(last)
        assert executor.entered.wait(60)
        server.terminate()
        # The member never ends before the answer comes.
        assert (answer.result(60).members_used, answer.result(60).stopped_by) == (1, "shutdown")
        assert not executor.release.is_set()
        executor.release.set()


def test_without_a_prefix_the_end_of_the_drain_is_a_503(tiny: Bundle, models: Path):
    executor = HeldExecutor(0)
    app = create_app(settings(models, drain_s=0.05), executor=executor)
    with ThreadPoolExecutor() as pool, serving(app) as server, AnytimeClient(server.url) as client:
        answer = pool.submit(client.predict, samples(1))
        assert executor.entered.wait(60)
        server.terminate()
        with pytest.raises(AnytimeError) as caught:
            answer.result(60)
        assert (caught.value.status, caught.value.code) == (503, "shutting_down")
        executor.release.set()


def test_a_stream_in_flight_ends_with_its_answer_after_sigterm(tiny: Bundle, models: Path):
    executor = HeldExecutor(1)
    with serving(create_app(settings(models), executor=executor)) as server, AnytimeClient(server.url) as client:
        stream = client.predict_stream(samples(1))
        assert next(stream).members_used == 1
        server.terminate()
        executor.release.set()
        *_, answer = stream
        assert (answer.members_used, answer.stopped_by) == (3, "complete")


# Around the predictions


def test_feedback_counts_every_prefix_once(tiny: Bundle, client: AnytimeClient, server: Server):
    x = samples(8)
    prefixes = [answer.argmax(axis=1) for answer in running_average(tiny, x)]
    labels = prefixes[2].tolist()
    answer = client.predict(x)
    told = client.feedback(answer.request_id, [tiny.manifest.classes[labels[0]], *labels[1:]])
    assert (told.members_used, told.correct, told.samples) == (3, 8, 8)
    value = server.context.metrics.registry.get_sample_value
    for members, classes in enumerate(prefixes, start=1):
        at = {"model": "tiny/1", "members": str(members)}
        right = int((classes == prefixes[2]).sum())
        assert value("anytime_feedback_rows_total", at) == 8
        assert value("anytime_feedback_correct_rows_total", at) == right
        assert value("anytime_prefix_accuracy", {**at, "source": "feedback"}) == right / 8
        assert value("anytime_prefix_agreeing_rows_total", at) == right
    with pytest.raises(AnytimeError, match="labelled already") as caught:
        client.feedback(answer.request_id, labels)
    assert caught.value.code == "unknown_request"


@pytest.mark.parametrize("labels", [[0], [0, 3], [0, -1], [0, "purple"]])
def test_labels_that_do_not_fit_are_refused_and_can_be_corrected(client: AnytimeClient, labels: list[Any]):
    answer = client.predict(samples(2))
    with pytest.raises(AnytimeError) as caught:
        client.feedback(answer.request_id, labels)
    assert caught.value.code == "invalid_field"
    assert client.feedback(answer.request_id, [0, 1]).samples == 2


def test_models_are_described_as_they_run_here(tiny: Bundle, client: AnytimeClient):
    (card,) = client.models()
    assert (card.name, card.version, card.ready, card.provider) == ("tiny", 1, True, "CPUExecutionProvider")
    assert card.input == tiny.manifest.input
    assert [member.reads_members for member in card.members] == [[], [0], [1]]
    assert all(member.median_ms > 0 for member in card.members)
    assert tuple(card.prefixes) == tiny.manifest.prefixes


def test_until_warm_it_is_alive_but_not_ready(tiny: Bundle, models: Path):
    app = create_app(settings(models))
    context = app.state.context
    with serving(app, ready=False) as server, AnytimeClient(server.url) as client:
        while not client.ready():
            assert httpx.get(f"{server.url}/healthz").status_code == 200
        context.ready = False
        refused = httpx.post(f"{server.url}/predict", json={"inputs": [[1, 2, 3, 4]]})
        assert (refused.status_code, refused.json()["code"]) == (503, "warming_up")
        assert refused.headers["retry-after"] == "1"
        assert httpx.get(f"{server.url}/readyz").json()["code"] == "warming_up"


def test_steps_beside_a_crowded_loop_are_told_apart(server: Server):
    costs, turns = server.context.costs, server.context.gate.turns
    quiet = costs._of("tiny/1")
    turns.announce(2)
    costs.look()
    assert costs._of("tiny/1") is not quiet


def test_a_dead_device_thread_is_unhealthy(server: Server):
    server.context.worker.stop()
    for path in ("/healthz", "/readyz"):
        assert httpx.get(server.url + path).status_code == 503
    refused = httpx.post(f"{server.url}/predict", json={"inputs": [[1, 2, 3, 4]]})
    assert (refused.status_code, refused.json()["code"]) == (503, "shutting_down")


def test_metrics_tell_what_happened(client: AnytimeClient, server: Server):
    client.predict(samples(2), deadline_ms=60_000)
    with pytest.raises(AnytimeError):
        client.predict(samples(2), deadline_ms=0.001)
    text = httpx.get(f"{server.url}/metrics").text
    for line in (
        'anytime_request_duration_seconds_count{path="/predict",status="200"} 1.0',
        'anytime_deadlines_total{outcome="met"} 1.0',
        'anytime_deadlines_total{outcome="unanswered"} 1.0',
        'anytime_deadline_overshoot_seconds_bucket{le="0.0",model="tiny/1"} 1.0',
        'anytime_members_used_sum{model="tiny/1",stopped_by="complete"} 3.0',
        'anytime_queue_duration_seconds_count{model="tiny/1"} 1.0',
        'anytime_rejected_total{reason="no_prefix_in_time"} 1.0',
        'anytime_prefix_accuracy{members="1",model="tiny/1",source="validation"} 0.7',
        "anytime_requests_in_flight 0.0",
        "anytime_rows_in_flight 0.0",
    ):
        assert line in text, line


def test_a_clients_request_id_is_kept_if_it_is_harmless(client: AnytimeClient, server: Server):
    assert client.predict(samples(1), request_id="trace.42").request_id == "trace.42"
    evil = httpx.get(f"{server.url}/healthz", headers={"x-request-id": "a\tb" * 50})
    assert len(evil.headers["x-request-id"]) == 32


def test_docs_are_served(shared: Server):
    assert httpx.get(f"{shared.url}/docs").status_code == 200
    assert httpx.get(f"{shared.url}/openapi.json").json()["openapi"].startswith("3.1")


@pytest.mark.anyio
async def test_the_asyncio_client_does_the_same(tiny: Bundle, server: Server):
    x = samples(2)
    async with AsyncAnytimeClient(server.url) as client:
        assert await client.ready()
        answer = await client.predict(x, outputs=["logits"], deadline_ms=60_000)
        *_, expected = running_average(tiny, x)
        np.testing.assert_allclose(logits_of(answer), expected, atol=1e-5)
        assert (await client.feedback(answer.request_id, [0, 1])).samples == 2
        assert [card.name for card in await client.models()] == ["tiny"]
        with pytest.raises(AnytimeError):
            await client.predict(x[:, :2])


def test_a_client_without_a_server_is_not_ready():
    with AnytimeClient("http://127.0.0.1:9") as client:
        assert not client.ready()


def test_two_bundles_on_one_device(models: Path):
    bundles = {name: write_tiny(models, name=name, members=members) for name, members in (("a", 2), ("b", 3))}
    app = create_app(settings(models), executor=CpuExecutor(1))
    with serving(app) as server, AnytimeClient(server.url) as client:
        for name, bundle in bundles.items():
            answer = client.predict(samples(1), model=name)
            assert (answer.model, answer.members_used) == (name, len(bundle.manifest.members))
        with pytest.raises(AnytimeError, match="say which in `model`: a, b"):
            client.predict(samples(1))
