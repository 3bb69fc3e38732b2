from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from unittest.mock import Mock

import pytest
from prometheus_client import CollectorRegistry

from bundle import Bundle
from service.app import _warm_up, create_app
from service.context import Context
from service.engine.deadline import Deadline
from service.ingress import Visit
from service.metrics import Metrics
from service.settings import Settings


@pytest.mark.parametrize("held_up", [False, True])
def test_what_a_slow_reader_takes_teaches_nothing_and_is_not_late(held_up: bool):
    names = [name for name in Context.__slots__ if name not in {"ready", "draining"}]
    metrics = Metrics(CollectorRegistry())
    context = Context(**{name: metrics if name == "metrics" else Mock() for name in names})
    visit = Visit("r", 10.0, {}, deadline=Deadline.after(10.0, 1.0, 0.1), decided=10.5, status=200, held_up=held_up)
    context.answered(visit, 13.0)
    assert context.reserve.observe.called != held_up
    outcome = {"outcome": "met" if held_up else "late"}
    assert metrics.registry.get_sample_value("anytime_deadlines_total", outcome) == 1


@pytest.mark.anyio
async def test_a_stop_during_warm_up_is_no_failure(tiny: Bundle, models: Path, caplog: pytest.LogCaptureFixture):
    settings = Settings(models_dir=models, device="cpu", cpu_threads=1, max_batch_rows=2)
    context: Context = create_app(settings).state.context
    context.gate.open(asyncio.get_running_loop())
    context.worker.start()
    context.draining = True
    await _warm_up(context)
    context.worker.stop()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
