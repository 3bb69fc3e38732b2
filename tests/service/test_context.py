from __future__ import annotations

from unittest.mock import Mock

import pytest
from prometheus_client import CollectorRegistry

from service.context import Context
from service.engine.deadline import Deadline
from service.ingress import Visit
from service.metrics import Metrics


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
