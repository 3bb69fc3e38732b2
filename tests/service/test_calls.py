from __future__ import annotations

import copy
import json
import pickle
import ssl
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from service import calls, stream_client
from service.anytime_error import AnytimeError
from service.calls import Budget, Events, Knobs
from service.client import AnytimeClient, AsyncAnytimeClient
from service.schemas import ContinueRequest, Progress
from service.schemas import Knobs as Asked

PREFIX = {"members_used": 1, "members_total": 3, "elapsed_ms": 1.5}
NAME = "Straße\u2028\u0085\x0b"
ANSWER = {
    **PREFIX,
    "model": "m",
    "version": 1,
    "request_id": "r",
    "stopped_by": "complete",
    "deadline_ms": None,
    "predictions": [{"class": NAME, "index": 0, "confidence": 1.0}],
}
STREAM = "".join(
    f"event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
    for kind, data in (("prefix", PREFIX), ("answer", ANSWER))
).encode()


@pytest.mark.parametrize("size", [1, 7, len(STREAM)])
def test_events_come_whole_however_they_are_cut(size: int):
    events = Events()
    pieces = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]
    prefix, answer = (event for piece in pieces for event in events.feed(piece))
    assert isinstance(prefix, Progress)
    assert answer.predictions[0].class_ == NAME, "only a line feed ends a line"


def test_a_typed_caller_may_say_what_a_request_may():
    assert Knobs.__annotations__.keys() | Budget.__annotations__.keys() == Asked.model_fields.keys()
    assert Budget.__annotations__.keys() == ContinueRequest.model_fields.keys()


def test_an_empty_list_of_outputs_asks_for_nothing():
    request = calls.predict("/predict", np.zeros((1, 2)), None, {"outputs": [], "deadline_ms": 5.0})
    assert request["url"] == "/predict?deadline_ms=5.0"
    assert calls.predict("/predict", np.zeros((1, 2)), None, {"outputs": ()})["url"] == "/predict"
    listed = calls.predict("/predict", np.zeros((1, 2)), None, {"outputs": ["logits", "probabilities"]})
    assert listed["url"] == "/predict?outputs=logits%2Cprobabilities"


MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize(
    "rows",
    [list(MATRIX.T), list(MATRIX.astype(">f8").T), [list(row) for row in MATRIX.T]],
    ids=["not in C order", "in another byte order", "numbers of numpy"],
)
def test_lists_may_hold_arrays_however_they_lie_in_memory(rows: list[Any]):
    said = [[0, 3], [1, 4], [2, 5]]
    assert json.loads(calls.predict("/predict", rows, None, {})["content"]) == {"inputs": said}
    assert json.loads(calls.feedback("r", rows)["content"])["labels"] == said
    assert json.loads(stream_client._encode(rows)) == {"inputs": said}


def test_what_is_no_json_is_said():
    with pytest.raises(TypeError, match="complex"):
        calls.predict("/predict", [1j], None, {})


@pytest.mark.parametrize("value", [float("inf"), float("nan"), np.float32("nan")])
def test_what_json_cannot_say_is_not_left_out(value: float):
    with pytest.raises(ValueError, match=r"^`exit_confidence` is (inf|nan), but must be finite"):
        calls.predict("/predict", [[1]], None, {"exit_confidence": value})
    with pytest.raises(ValueError, match=r"^`deadline_ms` is"):
        calls.continue_("r", {"deadline_ms": value})


@pytest.mark.parametrize("copied", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_a_problem_comes_whole_out_of_another_process(copied: Callable[[AnytimeError], AnytimeError]):
    error = AnytimeError(503, "overloaded", "The queue is full.", {"retry_after_s": 2})
    again = copied(error)
    assert str(again) == str(error) == "The queue is full. (overloaded, HTTP 503)"
    assert (again.status, again.code, again.retry_after_s) == (503, "overloaded", 2)


@pytest.mark.parametrize(("client", "http"), [(AnytimeClient, httpx.Client), (AsyncAnytimeClient, httpx.AsyncClient)])
def test_a_client_of_httpx_without_an_address_gets_one(
    client: Callable[..., AnytimeClient | AsyncAnytimeClient], http: Callable[..., httpx.Client | httpx.AsyncClient]
):
    assert client("http://there:81/up", http=http())._http.base_url == "http://there:81/up/"
    assert client(http=http(base_url="http://here"))._http.base_url == "http://here"


@pytest.mark.parametrize("client", [AnytimeClient, AsyncAnytimeClient])
def test_whom_the_system_trusts_is_trusted(
    client: Callable[[str], AnytimeClient | AsyncAnytimeClient], monkeypatch: pytest.MonkeyPatch
):
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    trusted = client("https://there")._http._transport._pool._ssl_context
    assert trusted.get_ca_certs() == ssl.create_default_context().get_ca_certs()


def test_a_name_is_one_part_of_a_path():
    assert calls.change("a/b", "load", 3) == {"url": "/models/a%2Fb/load", "params": {"version": 3}}


@pytest.mark.parametrize(
    ("media_type", "document", "code"),
    [
        (
            "application/problem+json",
            {"status": 503, "code": "overloaded", "detail": "x", "retry_after_s": 2},
            "overloaded",
        ),
        (
            "Application/Problem+JSON; charset=utf-8",
            {"status": 503, "code": "overloaded", "detail": "x", "retry_after_s": 2},
            "overloaded",
        ),
        ("application/problem+json", {"title": "Bad Gateway", "status": 502}, "no_problem_document"),
        ("application/problem+json", {"code": "x"}, "no_problem_document"),
        ("text/html", {}, "no_problem_document"),
    ],
)
def test_a_problem_is_raised_whoever_it_is_of(media_type: str, document: dict[str, object], code: str):
    response = httpx.Response(502, content=json.dumps(document), headers={"content-type": media_type})
    with pytest.raises(AnytimeError) as caught:
        calls.read(response, Progress)
    assert caught.value.code == code
    assert caught.value.retry_after_s == document.get("retry_after_s")


def test_a_problem_that_was_cut_off_is_none_of_this_service():
    response = httpx.Response(502, content=b'{"code": "over', headers={"content-type": "application/problem+json"})
    with pytest.raises(AnytimeError, match="no_problem_document"):
        calls.read(response, Progress)
