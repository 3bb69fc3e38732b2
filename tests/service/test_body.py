from __future__ import annotations

import asyncio
import gc

import numpy as np
import pytest
from starlette.requests import Request
from starlette.types import Message

from service import npy
from service.body import NPY, parse, read_predict
from service.errors import MalformedBody
from service.ingress import Visit
from service.schemas import ContinueRequest, Knobs, PredictRequest


@pytest.mark.parametrize("collecting", [True, False])
@pytest.mark.parametrize("content", [b'{"deadline_ms": 5}', b"{"])
def test_garbage_is_collected_after_decoding_as_before(collecting: bool, content: bytes):
    before = gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    try:
        if content == b"{":
            with pytest.raises(MalformedBody):
                parse(content, ContinueRequest)
        else:
            assert parse(content, ContinueRequest).deadline_ms == 5
        assert gc.isenabled() == collecting
    finally:
        (gc.enable if before else gc.disable)()


def test_no_garbage_is_collected_while_lists_are_made():
    lists = 100_000
    content = b'{"inputs": [' + b",".join([b"[1]"] * lists) + b"]}"
    begun: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        begun.append(info["generation"])

    gc.callbacks.append(note)
    try:
        assert len(parse(content, PredictRequest).inputs) == lists
    finally:
        gc.callbacks.remove(note)
    assert len(begun) < 10, "one a few hundred lists, if it went on"


def read(inputs: np.ndarray, query: bytes) -> tuple[Knobs, object]:
    return read_content(npy.encode(inputs), query, {b"content-type": NPY})


def read_content(content: bytes, query: bytes, headers: dict[bytes, bytes]) -> tuple[Knobs, object]:
    async def receive() -> Message:
        return {"type": "http.request", "body": content}

    scope = {"type": "http", "query_string": query, "state": {"visit": Visit("", 0.0, headers)}}
    return asyncio.run(read_predict(Request(scope, receive)))


def test_what_is_asked_does_not_keep_the_inputs():
    asked, inputs = read_content(b'{"inputs": [[1.0, 2.0]], "priority": 4}', b"", {})
    assert inputs == [[1.0, 2.0]]
    assert asked.priority == 4
    assert inputs not in dict(asked).values()


def test_requests_with_the_same_query_share_nothing_else():
    one, other, third = (
        read(np.full((1, 2), value), query) for value, query in [(1, b""), (2, b""), (3, b"priority=4")]
    )
    assert [inputs.tolist() for _, inputs in (one, other, third)] == [[[1, 1]], [[2, 2]], [[3, 3]]]
    assert [asked.priority for asked, _ in (one, other, third)] == [0, 0, 4]
