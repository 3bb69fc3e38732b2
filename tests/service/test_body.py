from __future__ import annotations

import gc

import pytest

from service.body import parse
from service.errors import MalformedBody
from service.schemas import ContinueRequest


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
