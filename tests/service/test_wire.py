"""Binary bodies and streams, over real HTTP."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from bundle import Bundle
from bundle.reference import running_average
from service import npy
from service.app import create_app
from service.body import REMEMBERED_BYTES
from service.client import AnytimeClient, AnytimeError, AsyncAnytimeClient
from service.schemas import PredictResponse, Progress
from service.settings import Settings
from tests.fakes import HeldExecutor, SteppedExecutor
from tests.service.server import Server, serving
from tests.tiny import samples, write_tiny

BINARY = {"content-type": npy.MEDIA_TYPE}


def settings(models: Path, **changes: Any) -> Settings:
    return Settings(models_dir=models, device="cpu", cpu_threads=1, max_batch_rows=8, **changes)


@pytest.fixture(scope="module")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(tiny_bundle: Bundle) -> Iterator[Server]:
    models = tiny_bundle.path.parent.parent
    with serving(create_app(settings(models, max_rows=32, max_body_bytes=20_000))) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[AnytimeClient]:
    with AnytimeClient(server.url) as one:
        yield one


def logits_of(answer: Any) -> np.ndarray:
    return np.array([one.logits for one in answer.predictions], np.float32)


# .npy


def test_an_array_and_a_list_get_the_same_answer(client: AnytimeClient):
    x = samples(3)
    binary, text = (client.predict(inputs, outputs=["logits"], max_members=2) for inputs in (x, x.tolist()))
    assert (binary.members_used, binary.stopped_by) == (2, "max_members")
    np.testing.assert_array_equal(logits_of(binary), logits_of(text))


@pytest.mark.parametrize("dtype", [">f4", "<f8", np.int16, np.uint8])
def test_arrays_are_converted_as_json_numbers_are(tiny_bundle: Bundle, client: AnytimeClient, dtype: Any):
    x = np.asfortranarray(np.arange(8).reshape(2, 4).astype(dtype))
    *_, expected = running_average(tiny_bundle, x.astype(np.float32))
    np.testing.assert_allclose(logits_of(client.predict(x, outputs=["logits"])), expected, atol=1e-4)


def test_the_answer_too_is_an_array(tiny_bundle: Bundle, client: AnytimeClient):
    x = samples(4)
    *_, expected = running_average(tiny_bundle, x)
    logits = client.predict_array(x, outputs=["logits"], deadline_ms=60_000, request_id="seven")
    np.testing.assert_allclose(logits.values, expected, atol=1e-5)
    assert (logits.head.members_used, logits.head.stopped_by, logits.head.request_id) == (3, "complete", "seven")
    probabilities = client.predict_array(x).values
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, np.exp(expected) / np.exp(expected).sum(1, keepdims=True), atol=1e-5)
    assert client.predict_array(x.tolist()).values.tolist() == probabilities.tolist()
    assert client.feedback("seven", expected.argmax(1).tolist()).correct == 4


def test_a_long_query_is_read_as_a_short_one_is(server: Server):
    name = "m" * 2 * REMEMBERED_BYTES
    response = httpx.post(f"{server.url}/predict?model={name}", content=npy.encode(samples(1)), headers=BINARY)
    assert (response.status_code, response.json()["code"]) == (404, "unknown_model")


@pytest.mark.parametrize("spelt", ["Application/Octet-Stream", "application/octet-stream; charset=binary"])
def test_a_media_type_may_be_spelt_as_http_allows(server: Server, spelt: str):
    response = httpx.post(f"{server.url}/predict", content=npy.encode(samples(1)), headers={"content-type": spelt})
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("query", "content", "status", "code"),
    [
        ("", b"[[1, 2, 3, 4]]", 400, "malformed_body"),
        ("", npy.encode(samples(1))[:-1], 400, "malformed_body"),
        ("", npy.encode(np.zeros((1, 3), np.float32)), 422, "wrong_shape"),
        ("", npy.encode(np.zeros((), np.float32)), 422, "wrong_shape"),
        ("", npy.encode(np.zeros((0, 4), np.float32)), 422, "empty_batch"),
        ("", npy.encode(np.zeros((1, 4), np.bool_)), 422, "wrong_dtype"),
        ("", npy.encode(np.full((1, 4), np.nan)), 422, "not_finite"),
        ("", npy.encode(np.full((1, 4), 1e300)), 422, "not_finite"),
        ("", npy.encode(samples(33)), 422, "too_many_rows"),
        ("", npy.encode(samples(2000)), 413, "body_too_large"),
        ("deadline=3", npy.encode(samples(1)), 422, "invalid_field"),
        ("deadline_ms=soon", npy.encode(samples(1)), 422, "invalid_field"),
        ("deadline_ms=", npy.encode(samples(1)), 422, "invalid_field"),
        ("deadline_ms=nan", npy.encode(samples(1)), 422, "invalid_deadline"),
        ("deadline_ms=3&deadline_ms=4", npy.encode(samples(1)), 422, "invalid_field"),
        ("outputs=logits,weights", npy.encode(samples(1)), 422, "invalid_field"),
        ("inputs=3", npy.encode(samples(1)), 422, "invalid_field"),
        ("version=7", npy.encode(samples(1)), 404, "unknown_version"),
    ],
)
def test_a_bad_binary_request_is_a_problem_document(server: Server, query: str, content: bytes, status: int, code: str):
    response = httpx.post(f"{server.url}/predict?{query}", content=content, headers=BINARY)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"].endswith(".")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("predict", {"inputs": samples(1).tolist()}),
        ("predict/stream", {"inputs": samples(1).tolist()}),
        ("predict/unknown/continue", {}),
        ("feedback", {"request_id": "unknown", "labels": [0]}),
    ],
)
def test_a_query_beside_json_is_refused_rather_than_ignored(server: Server, path: str, body: dict[str, Any]):
    response = httpx.post(f"{server.url}/{path}?deadline_ms=3", json=body)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_field")
    assert response.json()["field"] == "deadline_ms=3"


def test_two_arrays_do_not_fit_into_one_answer(client: AnytimeClient):
    with pytest.raises(AnytimeError, match="one array") as caught:
        client.predict_array(samples(1), outputs=["logits", "probabilities"])
    assert caught.value.code == "invalid_field"


# Streams


def test_every_prefix_is_an_event_as_soon_as_it_is_finished(tiny: Bundle, models: Path):
    executor = SteppedExecutor()
    x = samples(2)
    prefixes = list(running_average(tiny, x))
    with serving(create_app(settings(models), executor=executor)) as server, AnytimeClient(server.url) as client:
        executor.go.release()
        told = []
        # The next member may not start before the event of the one before it has come.
        for event in client.predict_stream(x, outputs=["logits"], request_id="streamed"):
            told.append(event)
            executor.go.release()
        answer = told[-1]
        assert [type(one) for one in told] == [Progress, Progress, PredictResponse]
        assert [one.members_used for one in told] == [1, 2, 3]
        assert [one.expected_accuracy for one in told] == [prefix.accuracy for prefix in tiny.manifest.prefixes]
        for one, expected in zip(told, prefixes, strict=True):
            np.testing.assert_allclose(logits_of(one), expected, atol=1e-5)
        assert (answer.stopped_by, answer.request_id) == ("complete", "streamed")
        assert client.feedback("streamed", [0, 1]).members_used == 3


def test_at_the_deadline_the_last_prefix_is_the_answer(tiny: Bundle, models: Path):
    executor = HeldExecutor(1)
    with serving(create_app(settings(models), executor=executor)) as server, AnytimeClient(server.url) as client:
        *_, answer = client.predict_stream(samples(1), deadline_ms=300)
        executor.release.set()
        assert isinstance(answer, PredictResponse)
        assert (answer.members_used, answer.stopped_by, answer.deadline_ms) == (1, "deadline", 300)


def test_what_is_refused_before_the_first_prefix_is_an_ordinary_problem(client: AnytimeClient):
    for inputs, knobs, code in (
        (samples(1)[:, :2], {}, "wrong_shape"),
        (samples(1), {"model": "absent"}, "unknown_model"),
        (samples(1), {"deadline_ms": 0.001}, "no_prefix_in_time"),
    ):
        with pytest.raises(AnytimeError) as caught:
            list(client.predict_stream(inputs, **knobs))
        assert caught.value.code == code


def test_a_full_queue_refuses_a_stream(tiny: Bundle, models: Path):
    executor = HeldExecutor(1)
    app = create_app(settings(models, max_queue_rows=4, max_rows=4), executor=executor)
    with serving(app) as server, AnytimeClient(server.url) as client, AnytimeClient(server.url) as other:
        first = client.predict_stream(samples(3))
        assert next(first).members_used == 1
        with pytest.raises(AnytimeError) as caught:
            next(other.predict_stream(samples(2)))
        executor.release.set()
        *_, answer = first
        assert answer.members_used == 3
    assert (caught.value.status, caught.value.code) == (503, "overloaded")


def test_a_hang_up_between_two_events_frees_the_work(tiny: Bundle, models: Path):
    executor = HeldExecutor(1)
    with serving(create_app(settings(models), executor=executor)) as server:
        body = json.dumps({"inputs": samples(1).tolist()}).encode()
        with socket.create_connection(httpx.URL(server.url).netloc.decode().split(":")) as wire:
            head = b"POST /predict/stream HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
            wire.sendall(head + body)
            received = b""
            while b"event: prefix" not in received:
                received += wire.recv(10_000)
        while server.context.gate.requests_in_flight:
            with AnytimeClient(server.url) as other:
                other.ready()
        executor.release.set()
        server.idle()
        assert executor.members_run == [0, 1], "the third member is not run for nobody"


@pytest.mark.anyio
async def test_the_asyncio_client_does_the_same(server: Server):
    x = samples(2)
    async with AsyncAnytimeClient(server.url) as client:
        logits = (await client.predict_array(x, outputs=["logits"])).values
        events = [event async for event in client.predict_stream(x, outputs=["logits"])]
        np.testing.assert_array_equal(logits_of(events[-1]), logits)
        assert isinstance(events[-1], PredictResponse)
        with pytest.raises(AnytimeError):
            _ = [event async for event in client.predict_stream(x[:, :1])]
