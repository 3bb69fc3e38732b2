"""GET /docs: complete, and of one piece."""

from __future__ import annotations

import json
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from bundle import Bundle
from service.app import create_app
from service.client import AnytimeClient
from service.contract import PATH
from service.errors import codes
from service.handbook import page
from service.settings import Settings
from tests.service.server import serving

LEADING = ("href", "src", "srcset", "action", "data", "poster", "background", "formaction")
"""Attributes by which a page can make a browser fetch something."""


class Page(HTMLParser):
    """What a test asks of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self._within = ""
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.texts: dict[str, list[str]] = {"code": [], "pre": [], "style": []}
        self.feed(html)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name in LEADING]
        assert not [name for name, _ in attrs if name.startswith("on") or name == "style"]
        self._within = tag
        if tag in self.texts:
            self.texts[tag].append("")

    def handle_endtag(self, tag) -> None:
        self._within = ""

    def handle_data(self, data) -> None:
        if self._within in self.texts:
            self.texts[self._within][-1] += data


@pytest.fixture(scope="module")
def contract() -> dict:
    return yaml.safe_load(PATH.read_text())


@pytest.fixture(scope="module")
def handbook(contract: dict) -> Page:
    return Page(page(contract))


def test_nothing_is_fetched_from_anywhere(handbook: Page):
    assert {link for link in handbook.links if not link.startswith("#")} == {"/openapi.json", "data:,"}
    assert not {"script", "img", "iframe", "object", "embed", "base", "form"} & set(handbook.tags)
    (style,) = handbook.texts["style"]
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style


def test_every_link_leads_somewhere_and_every_anchor_is_one(handbook: Page):
    assert {link[1:] for link in handbook.links if link.startswith("#")} <= set(handbook.ids)
    assert len(set(handbook.ids)) == len(handbook.ids)


def test_it_holds_all_of_the_contract(handbook: Page, contract: dict):
    told = set(handbook.texts["code"])
    assert set(contract["paths"]) <= told
    assert set(codes()) == {problem["code"] for problem in contract["x-problems"]} <= told
    for schema in contract["components"]["schemas"].values():
        assert set(schema.get("properties", {})) <= told


def test_what_it_shows_is_text_and_never_markup(contract: dict):
    hostile = {**contract, "info": {**contract["info"], "title": "<script>", "description": "`<b>` & <i>"}}
    html = page(hostile)
    assert "<script" not in html
    assert "<code>&lt;b&gt;</code> &amp; &lt;i&gt;" in html


def test_it_is_served_and_its_examples_work(tiny: Bundle, models: Path):
    with (
        serving(create_app(Settings(models_dir=models, device="cpu", cpu_threads=1))) as server,
        AnytimeClient(server.url) as client,
    ):
        answer = client._http.get("/docs")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert client._http.get("/redoc").status_code == 404
        commands = [shlex.split(text) for text in Page(answer.text).texts["pre"] if text.startswith("curl")]
        bodies = {one[1].removeprefix("$ANYTIME"): json.loads(one[-1]) for one in commands if "-d" in one}
        # The example's deadline is one for a quiet machine.
        asked = bodies["/predict"] | {"deadline_ms": 60_000}
        predicted = client._http.post("/predict", json=asked)
        assert predicted.status_code == 200
        labels = bodies["/feedback"] | {"request_id": predicted.json()["request_id"], "labels": ["red"]}
        assert client._http.post("/feedback", json=labels).json()["samples"] == 1
