from __future__ import annotations

from typing import Any

import pytest

from service.access import Access, is_foreign
from service.errors import ForeignOrigin, NotFound, Unauthorized

KEY, OTHER = "a-key-of-some-length", "another-key-of-some"
ADMIN = 9000


def scope(method: str, path: str, port: int = 8000, **more: Any) -> dict[str, Any]:
    return {"type": "http", "method": method, "path": path, "server": ("127.0.0.1", port), **more}


@pytest.mark.parametrize(
    ("headers", "admitted"),
    [
        ({}, False),
        ({b"authorization": b"Bearer " + KEY.encode()}, True),
        ({b"authorization": b"bearer  " + OTHER.encode()}, True),
        ({b"x-api-key": OTHER.encode()}, True),
        ({b"authorization": b"Basic " + KEY.encode()}, False),
        ({b"authorization": KEY.encode()}, False),
        ({b"authorization": b"Bearer " + KEY.encode()[:-1]}, False),
        ({b"authorization": b"Bearer " + KEY.encode() + b"x"}, False),
        ({b"authorization": b"Bearer "}, False),
        ({b"x-api-key": b"\xff\x00"}, False),
    ],
)
def test_one_of_the_keys_opens(headers: dict[bytes, bytes], admitted: bool):
    refused = Access([KEY, OTHER]).refuse(scope("POST", "/predict"), headers)
    assert (refused is None) == admitted
    if refused is not None:
        assert isinstance(refused, Unauthorized)
        assert refused.headers == {"www-authenticate": "Bearer"}
        assert KEY not in refused.detail


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_need_no_key_and_are_on_either_port(path: str):
    access = Access([KEY], ADMIN)
    assert [access.refuse(scope("GET", path, port), {}) for port in (8000, ADMIN)] == [None, None]


@pytest.mark.parametrize("path", ["/metrics\n", "/healthz\n", "/models/tiny/load\x0b", "/metrics\u2028"])
def test_a_path_that_only_looks_like_another_is_nobodys(path: str):
    assert isinstance(Access([KEY], ADMIN).refuse(scope("GET", path), {}), NotFound)


@pytest.mark.parametrize(
    ("origin", "refused"),
    [
        (b"http://evil.example", True),
        (b"http://here", True),
        (b"http://[", True),
        (b"null", True),
        (b"", True),
        (b"http://here:8000", False),
        (b"http://HERE:8000", False),
        (None, False),
    ],
)
def test_only_pages_of_this_host_change_what_is_served(origin: bytes | None, refused: bool):
    headers = {b"host": b"here:8000"} | ({} if origin is None else {b"origin": origin})
    for method, path, judged in (
        ("POST", "/models/tiny/unload", True),
        ("POST", "/predict", False),
        ("GET", "/models", False),
    ):
        found = Access().refuse(scope(method, path), headers)
        assert isinstance(found, ForeignOrigin) == (refused and judged)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (b"https://here", b"here:443"),
        (b"https://here:443", b"HERE"),
        (b"http://here", b"here:80"),
        (b"http://[::1]", b"[::1]"),
    ],
)
def test_a_port_that_need_not_be_named_is_the_same(origin: bytes, host: bytes):
    assert not is_foreign({b"origin": origin, b"host": host})


def test_without_keys_everyone_may_ask():
    assert Access().refuse(scope("POST", "/models/tiny/load"), {}) is None


@pytest.mark.parametrize(
    ("method", "path", "administers"),
    [
        ("GET", "/metrics", True),
        ("POST", "/models/tiny/load", True),
        ("DELETE", "/models/tiny", True),
        ("PUT", "/models", True),
        ("GET", "/models", False),
        ("HEAD", "/models/tiny", False),
        ("POST", "/predict", False),
        ("POST", "/modelsque", False),
    ],
)
def test_administration_has_a_port_of_its_own(method: str, path: str, administers: bool):
    access = Access((), ADMIN)
    assert isinstance(access.refuse(scope(method, path), {}), NotFound if administers else type(None))
    assert access.refuse(scope(method, path, ADMIN), {}) is None
    assert Access().refuse(scope(method, path), {}) is None, "one port serves all"


def test_a_stream_is_for_those_with_a_key_on_either_port():
    stream = [scope("GET", "/stream", port) | {"type": "websocket"} for port in (8000, ADMIN)]
    for one in stream:
        del one["method"]
    access = Access([KEY], ADMIN)
    assert [type(access.refuse(one, {})) for one in stream] == [Unauthorized] * 2
    assert [access.refuse(one, {b"x-api-key": KEY.encode()}) for one in stream] == [None] * 2


def test_the_admin_port_wants_a_key_too():
    assert isinstance(Access([KEY], ADMIN).refuse(scope("GET", "/metrics", ADMIN), {}), Unauthorized)
