from __future__ import annotations

import gc

import pytest

from service.body import parse
from service.errors import MalformedBody
from service.schemas import ContinueRequest, PredictRequest


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
