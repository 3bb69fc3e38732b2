"""The dashboard and the alerts ask only for what the service exports."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from service.app import create_app
from service.engine.cpu import CpuExecutor
from service.engine.step import Step
from service.engine.ticket import Logits, StoppedBy
from service.errors import Problem
from service.metrics import Metrics
from service.settings import Settings
from tests.docker.files import dashboard, read_yaml, rules
from tests.docker.promql import parse
from tests.tiny import samples, write_tiny
from tests.tiny_stream import write_stream

SCRAPE_LABELS = {"job", "instance"}
PROMETHEUS_OWN = {
    "up": SCRAPE_LABELS,
    "ALERTS": SCRAPE_LABELS | {"alertname", "alertstate", "severity", "model"},
}


def expressions() -> list[tuple[str, str]]:
    """(where, expression) of every alert and every target of every panel."""
    found = [(rule["alert"], rule["expr"]) for rule in rules()]
    for panel in dashboard()["panels"]:
        found += [(f"{panel['title']} {target['refId']}", target["expr"]) for target in panel.get("targets", [])]
    return found


BY_EXPRESSION = pytest.mark.parametrize(("where", "expression"), expressions(), ids=[name for name, _ in expressions()])


class Dead(CpuExecutor):
    """Cannot be warmed up."""

    def run(self, step: Step) -> Logits:
        raise RuntimeError("no device")


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


async def wait_for(client: httpx.AsyncClient, path: str, status: int) -> None:
    with anyio.fail_after(60):
        while (await client.get(path)).status_code != status:
            await anyio.lowlevel.checkpoint()


async def exposition(models: Path, executor: CpuExecutor) -> str:
    """/metrics after some of everything; with a dead executor, after its health check."""
    app = create_app(Settings(models_dir=models), executor=executor)
    async with client_of(app) as client:
        if isinstance(executor, Dead):
            await wait_for(client, "/healthz", 503)
        else:
            await wait_for(client, "/readyz", 200)
            wanted = {"model": "tiny", "inputs": samples(2).tolist(), "deadline_ms": 5_000}
            answer = await client.post("/predict", json=wanted)
            labels = [row["class"] for row in answer.json()["predictions"]]
            await client.post("/feedback", json={"request_id": answer.json()["request_id"], "labels": labels})
            await client.post("/predict", json={"inputs": []})
        return (await client.get("/metrics")).text


def labels_by_sample(text: str) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name].append(sample.labels)
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, str]]]:
    """Labels of every sample of a service that has had a request of each kind, by the sample's name."""
    models = tmp_path_factory.mktemp("models")
    write_tiny(models)
    write_tiny(models, name="values", task="regression")
    write_stream(models)
    return labels_by_sample(anyio.run(exposition, models, CpuExecutor(threads=1)))


def test_the_fixture_sees_every_instrument(exported: dict[str, list[dict[str, str]]]):
    metrics = Metrics(CollectorRegistry())
    metrics.watch(
        requests_in_flight=int,
        rows_in_flight=int,
        kept_requests=int,
        kept_bytes=int,
        ungraphed_members=int,
        ready=int,
        device_thread_alive=int,
    )
    families = {metric.name for metric in metrics.registry.collect()}
    seen = {re.sub("_(total|bucket|sum|count|created)$", "", name) for name in exported}
    assert families
    assert families == seen


@BY_EXPRESSION
def test_only_exported_metrics_and_labels_are_asked_for(
    where: str, expression: str, exported: dict[str, list[dict[str, str]]]
):
    spoken = parse(expression)
    assert spoken.matchers
    for metric, matchers in spoken.matchers.items():
        assert metric in exported or metric in PROMETHEUS_OWN, where
        labels = PROMETHEUS_OWN.get(metric) or {*exported[metric][0], *SCRAPE_LABELS}
        assert {label for label, _, _ in matchers} <= labels, where
        assert spoken.grouped <= labels, where


def values_of(exported: dict[str, list[dict[str, str]]]) -> dict[str, set[str]]:
    """The values that a label with few of them can have."""
    problems, leaves = [Problem], set()
    for kind in problems:
        problems += kind.__subclasses__()
        leaves |= {kind.code} if hasattr(kind, "code") else set()
    return {
        "outcome": {"met", "late", "unanswered"},
        "source": {labels["source"] for labels in exported["anytime_prefix_accuracy"]},
        "reason": leaves,
        "path": {"/predict", "/healthz"},
        "stopped_by": set(StoppedBy),
        "status": {"200", "503"},
        "job": {read_yaml("prometheus.yml")["scrape_configs"][0]["job_name"]},
        "alertstate": {"firing", "pending"},
    }


@BY_EXPRESSION
def test_matchers_match_something(where: str, expression: str, exported: dict[str, list[dict[str, str]]]):
    known = values_of(exported)
    for matchers in parse(expression).matchers.values():
        for label, operator, value in matchers:
            if value == "$model":
                continue
            alternatives = value.split("|") if operator == "=~" else [value]
            assert set(alternatives) <= known[label], where


def test_a_dead_device_thread_shows_where_its_alert_looks(tmp_path: Path):
    write_tiny(tmp_path)
    [rule] = [rule for rule in rules() if rule["alert"] == "DeviceThreadDown"]
    assert rule["expr"] == "anytime_device_thread_alive == 0"
    assert "anytime_device_thread_alive 0.0" in anyio.run(exposition, tmp_path, Dead()).splitlines()
    assert "anytime_device_thread_alive 1.0" in anyio.run(exposition, tmp_path, CpuExecutor(1)).splitlines()


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_do_with_settings_that_exist(rule: dict[str, Any]):
    assert set(rule["annotations"]) == {"summary", "description"}
    assert rule["labels"]["severity"] in {"page", "ticket"}
    text = " ".join(rule["annotations"].values())
    assert {name.lower() for name in re.findall(r"ANYTIME_(\w+)", text)} <= set(Settings.model_fields)
    # A label that the expression does not keep would be blank in the message.
    kept = parse(rule["expr"]).grouped | (SCRAPE_LABELS if "by" not in rule["expr"] else set())
    assert set(re.findall(r"\$labels\.(\w+)", text)) <= kept


def test_every_alert_is_tested_to_fire():
    fired = {
        case["alertname"]
        for test in read_yaml("alerts.test.yml")["tests"]
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    }
    assert fired == {rule["alert"] for rule in rules()}


def test_every_instrument_is_on_the_dashboard():
    shown = {metric for _, expression in expressions() for metric in parse(expression).matchers}
    metrics = Metrics(CollectorRegistry())
    metrics.watch(
        requests_in_flight=int,
        rows_in_flight=int,
        kept_requests=int,
        kept_bytes=int,
        ungraphed_members=int,
        ready=int,
        device_thread_alive=int,
    )
    families = {metric.name for metric in metrics.registry.collect()}
    assert {name for name in families if not any(metric.startswith(name) for metric in shown)} == set()


def test_panels_do_not_overlap_and_have_their_own_ids():
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        apart = (
            one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"],
            one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"],
        )
        assert any(apart)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


def test_every_panel_explains_itself_with_settings_that_exist():
    for panel in dashboard()["panels"]:
        if panel["type"] == "row":
            continue
        assert panel["description"], panel["title"]
        names = re.findall(r"ANYTIME_(\w+)", panel["description"])
        assert {name.lower() for name in names} <= set(Settings.model_fields)


def test_the_dashboard_uses_only_variables_that_there_are():
    defined = {variable["name"] for variable in dashboard()["templating"]["list"]}
    used = {name for _, expression in expressions() for name in re.findall(r"\$(\w+)", expression)}
    assert used - {"__rate_interval", "__range"} == defined


def test_the_model_is_chosen_from_a_metric_that_has_it(exported: dict[str, list[dict[str, str]]]):
    [variable] = dashboard()["templating"]["list"]
    metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
    assert label in exported[metric][0]
