from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from bundle import Bundle
from service import npy
from service.app import create_app
from service.express import Express
from service.ingress import Ingress
from service.settings import Settings
from tests.service.server import serving
from tests.tiny import samples

LONG_MS = 60_000
ROWS = samples(2).tolist()
BINARY = {"content-type": npy.MEDIA_TYPE, "accept": npy.MEDIA_TYPE}
KEEP = {"inputs": ROWS, "max_members": 1, "keep_ms": LONG_MS, "outputs": ["logits"]}
CONVERSATION: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("POST", "/predict", {"json": {"inputs": ROWS, "deadline_ms": LONG_MS, "outputs": ["probabilities"]}}),
    ("POST", "/predict?max_members=2", {"content": npy.encode(samples(2)), "headers": BINARY}),
    ("POST", "/predict", {"content": b"{"}),
    ("POST", "/predict", {"json": {"inputs": ROWS, "model": "absent"}}),
    ("POST", "/predict", {"content": bytes(20_001)}),
    ("POST", "/predict", {"json": KEEP, "headers": {"x-request-id": "kept"}}),
    ("POST", "/predict/kept/continue", {"json": {"inputs": ROWS}}),
    ("POST", "/predict/kept/continue", {"content": bytes(20_001)}),
    ("POST", "/predict/kept/continue", {"json": {"max_members": 2, "keep_ms": LONG_MS, "outputs": ["logits"]}}),
    ("POST", "/predict/kept/continue?deadline_ms=3", {"json": {}}),
    ("POST", "/predict/kept/continue", {"json": {"deadline_ms": LONG_MS, "outputs": ["logits"]}}),
    ("POST", "/predict/kept/continue", {"json": {}}),
    ("POST", "/predict/absent/continue", {"json": {}}),
    ("POST", "/predict/k%C3%A9pt%0A/continue", {"json": {}}),
    ("POST", "/predict/a%2Fb/continue", {"json": {}}),
    ("POST", "/predict//continue", {"json": {}}),
    ("POST", "/predict/kept/continue/", {"json": {}}),
    ("GET", "/predict/kept/continue", {}),
    ("PUT", "/predict", {}),
)
UNLIKE = {"date", "location", "elapsed_ms", "request_id", "x-request-id", "anytime-answer", "content-length"}
"""Fields and headers that differ from one time to the next: with the port, or the time, even in length."""
WAITING = {"/readyz", "warming_up"}
"""Labels of what the test's own waiting for the server counts."""
COUNTED = ("request_duration_seconds_count", "rejected_total", "admitted_total", "ended_total", "deadlines_total")


@pytest.mark.anyio
async def test_what_is_express_is_answered_without_the_framework(
    tiny: Bundle, models: Path, monkeypatch: pytest.MonkeyPatch
):
    app = create_app(Settings(models_dir=models, device="cpu"))
    seen = []

    async def framework(scope, receive, send) -> None:
        seen.append((scope["method"], scope["path"]))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    assert isinstance(app.front, Ingress)
    assert isinstance(app.front._app, Express)
    monkeypatch.setattr(app.front._app, "_app", framework)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        for path in ("/predict", "/predict/stream", "/predict/some/continue"):
            refused = await client.post(path, content=b"{")
            assert (refused.status_code, refused.json()["code"]) == (400, "malformed_body")
            assert refused.headers["x-request-id"] == refused.json()["request_id"]
        for method, path in (("GET", "/predict"), ("POST", "/feedback"), ("GET", "/models")):
            assert (await client.request(method, path)).status_code == 204
    assert seen == [("GET", "/predict"), ("POST", "/feedback"), ("GET", "/models")]


def test_express_routes_are_declared_all_the_same(tiny: Bundle, models: Path):
    app = create_app(Settings(models_dir=models, device="cpu"))
    documented = app.openapi()["paths"]
    for path in app.front._app._endpoints:
        assert documented[path]["post"]["summary"]


def converse(models: Path, *, express: bool) -> tuple[list[Any], dict[Any, float]]:
    """The answers to the conversation without what is of the moment, and what was counted."""
    app = create_app(Settings(models_dir=models, device="cpu", cpu_threads=1, max_body_bytes=20_000))
    if not express:
        app.front._app = app.framework
    answers = []
    with serving(app) as server, httpx.Client(base_url=server.url) as client:
        for method, path, content in CONVERSATION:
            response = client.request(method, path, **content)
            headers = {name: value for name, value in response.headers.items() if name not in UNLIKE}
            document = response.content
            if "json" in headers.get("content-type", ""):
                document = {name: value for name, value in response.json().items() if name not in UNLIKE}
            answers.append((method, path, response.status_code, headers, document))
        counts = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in server.context.metrics.registry.collect()
            for sample in family.samples
            if sample.name.removeprefix("anytime_") in COUNTED and not WAITING & set(sample.labels.values())
        }
    return answers, counts


def test_with_and_without_the_framework_answers_and_metrics_are_the_same(tiny: Bundle, models: Path):
    fast, fast_counts = converse(models, express=True)
    slow, slow_counts = converse(models, express=False)
    assert fast == slow
    assert fast_counts == slow_counts
    assert {status for _, _, status, _, _ in fast} == {200, 307, 400, 404, 405, 410, 413, 422}
    continued = ("path", "/predict/{request_id}/continue")
    assert sum(count for labels, count in fast_counts.items() if continued in labels) == 7
