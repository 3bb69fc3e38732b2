from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from bundle import Bundle
from service.app import create_app
from service.express import Express
from service.ingress import Ingress
from service.settings import Settings


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
        for path in ("/predict", "/predict/stream"):
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
