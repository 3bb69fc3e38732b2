"""Whatever is sent, the answer is one that openapi.yaml promises: its status, its type, its fields.

`test_contract_generated` has requests derived from the contract; here are those it does not derive: bodies that are no
JSON, values that the service's own rules tell from good ones, and names that are served beside names that are not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.service.server import Server, serving_tiny

FIELDS = {
    "inputs": [[[0.5, 1, 2, 3]], [[1, 2, 3, 4]] * 3, [[1, 2]], [], [[1e39, 0, 0, 0]]],
    "deadline_ms": [1000, 0.001, -1, 1e12, "50"],
    "max_members": [1, 99, 0, 1.5],
    "outputs": [["logits"], ["probabilities", "logits"], ["weights"], "logits"],
    "keep_ms": [1000, 0, 1e9],
    "model": ["tiny", "absent", 3],
    "version": [1, 7, 0],
    "request_id": ["r", "absent", 5],
    "labels": [[0], ["red"], [0, 1, 2], [9], ["purple"]],
    "unknown": [None],
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Mostly objects with the right fields, each with a value that is good, bad, or anything."""
    names = draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=4, unique=True))
    document = {name: draw(st.sampled_from(FIELDS[name]) | ANYTHING) for name in names}
    return json.dumps(document).encode()


BODIES = documents() | ANYTHING.map(json.dumps).map(str.encode) | st.binary(max_size=50)
OPERATIONS = (
    ("post", "/predict", "/predict"),
    ("post", "/predict/{request_id}/continue", "/predict/r/continue"),
    ("post", "/predict/{request_id}/continue", "/predict/absent/continue"),
    ("post", "/feedback", "/feedback"),
    ("post", "/models/{name}/load", "/models/tiny/load"),
    ("post", "/models/{name}/load", "/models/absent/load"),
    ("post", "/models/{name}/unload", "/models/absent/unload"),
    ("get", "/stream", "/stream"),
)


class Contract:
    """openapi.yaml, held against answers."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema

    def check(self, method: str, path: str, response: httpx.Response) -> None:
        documented = self._schema["paths"][path][method]["responses"]
        assert str(response.status_code) in documented, response.text
        content = documented[str(response.status_code)]["content"]
        kind = response.headers["content-type"]
        assert kind in content
        # References lead to #/components, so the components come along.
        schema = {**content[kind]["schema"], "components": self._schema["components"]}
        Draft202012Validator(schema).validate(response.json())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving_tiny(tmp_path_factory.mktemp("models")) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as client:
        yield client


@pytest.fixture(scope="module")
def contract(http: httpx.Client) -> Contract:
    return Contract(http.get("/openapi.json").json())


@settings(max_examples=200, deadline=None)
@given(
    operation=st.sampled_from(OPERATIONS),
    body=BODIES,
    version=st.sampled_from(["", "1", "7", "0", "x", "1e3"]),
)
def test_every_answer_is_one_that_is_promised(
    http: httpx.Client, contract: Contract, operation: tuple[str, str, str], body: bytes, version: str
):
    method, path, url = operation
    query = {"version": version} if version and "{name}" in path else {}
    response = http.request(method, url, params=query, content=body, headers={"x-request-id": "r"})
    contract.check(method, path, response)
    if not response.is_success:
        problem = response.json()
        assert problem["status"] == response.status_code
        assert problem["request_id"] == response.headers["x-request-id"]
        assert response.status_code != 500


def test_a_good_answer_is_one_that_is_promised(http: httpx.Client, contract: Contract):
    body = {"inputs": [[1, 2, 3, 4]], "max_members": 1, "keep_ms": 1000, "outputs": ["logits", "probabilities"]}
    kept = http.post("/predict", json=body)
    assert kept.json()["kept_ms"] == 1000
    contract.check("post", "/predict", kept)
    gone_on = http.post(f"/predict/{kept.json()['request_id']}/continue", json={})
    assert gone_on.status_code == 200
    contract.check("post", "/predict/{request_id}/continue", gone_on)


def test_afterwards_nothing_is_in_flight(server: Server):
    assert server.context.gate.requests_in_flight == 0
    assert server.context.worker._unsettled == set()
