"""schemathesis derives requests from openapi.yaml, good ones and bad ones, and holds the answers against it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from service.app import create_app
from service.contract import PATH
from service.settings import Settings
from tests.service.server import Server, serving
from tests.tiny import write_tiny

HERE = Path(__file__).parents[2]
CONTINUE = "/predict/{request_id}/continue"
UNLOAD = "/models/{name}/unload"
"""Left out: once it has succeeded there is nothing more to ask. `test_contract_fuzz` asks it."""
STREAM = "/stream"
"""A WebSocket: whatever is wrong with a plain request, what it needs first is an upgrade (426)."""
OPTIONS = (
    "--no-color",
    "--generation-deterministic",
    "--no-shrink",
    "--warnings=off",
    "--checks=all",
    # More is refused than a schema can say; and only what was asked to be kept is there to be continued.
    "--exclude-checks=positive_data_acceptance,ensure_resource_availability",
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    models = tmp_path / "models"
    write_tiny(models)
    with serving(create_app(Settings(models_dir=models, device="cpu", cpu_threads=1, max_batch_rows=2))) as running:
        yield running


def fuzz(server: Server, folder: Path, *options: str) -> None:
    """Run the command, in a process of its own: its plugin for pytest changes what pytest collects and warns of."""
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", str(PATH), "--url", server.url, *OPTIONS, *options],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(HERE), "SCHEMATHESIS_HOOKS": "tests.service.fuzzing"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    server.idle()
    assert server.context.gate.requests_in_flight == 0
    assert server.context.worker._unsettled == set()


def good_answers(server: Server, path: str) -> float:
    labels = {"path": path, "status": "200"}
    registry = server.context.metrics.registry
    return registry.get_sample_value("anytime_request_duration_seconds_count", labels) or 0


def test_every_answer_is_one_that_is_promised(server: Server, tmp_path: Path):
    left_out = (f"--exclude-path={path}" for path in (UNLOAD, STREAM))
    fuzz(server, tmp_path, "--phases=examples,coverage,fuzzing", "--max-examples=20", *left_out)
    paths = yaml.safe_load(PATH.read_text())["paths"]
    promised = {path for path, item in paths.items() if all("200" in one["responses"] for one in item.values())}
    assert not [path for path in promised - {UNLOAD, CONTINUE} if not good_answers(server, path)], "not refusals only"


def test_so_it_is_where_a_request_follows_from_an_answer(server: Server, tmp_path: Path):
    linked = (f"--include-path={path}" for path in ("/predict", CONTINUE, "/feedback"))
    fuzz(server, tmp_path, "--phases=stateful", "--mode=positive", "--max-examples=30", *linked)
    assert good_answers(server, CONTINUE)
