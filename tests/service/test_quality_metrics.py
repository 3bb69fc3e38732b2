"""Feedback may come for a model that has been unloaded: it counts for nobody, and breaks nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.quality_metrics import QualityMetrics
from tests.tiny import write_tiny


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_feedback_counts_until_its_model_is_unloaded(tmp_path: Path, task: str):
    registry = CollectorRegistry()
    quality = QualityMetrics(registry)
    quality.serve("tiny/1", write_tiny(tmp_path, task=task).manifest)

    def rows() -> float | None:
        return registry.get_sample_value("anytime_feedback_rows_total", {"model": "tiny/1", "members": "2"})

    def label() -> None:
        if task == "regression":
            quality.labelled_values("tiny/1", 2, 0.5, 4)
        else:
            quality.labelled("tiny/1", 2, 3, 4)

    label()
    assert rows() == 4
    quality.forget("tiny/1")
    label()
    assert rows() is None
