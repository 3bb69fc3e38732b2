from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ANYTIME_PORT", "9000")
    monkeypatch.setenv("ANYTIME_MODELS_DIR", "/data/bundles")
    monkeypatch.setenv("ANYTIME_MODELS", "digits, cifar10/3")
    settings = Settings()
    assert (settings.port, settings.models_dir, settings.models) == (
        9000,
        Path("/data/bundles"),
        ("digits", "cifar10/3"),
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "70000"),
        ("DEVICE", "tpu"),
        ("MAX_ROWS", "0"),
        ("COST_QUANTILE", "1.5"),
        ("MODELS", "digits/latest"),
        ("RESERVE_MS", "-1"),
    ],
)
def test_a_wrong_value_is_refused_at_start(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    monkeypatch.setenv(f"ANYTIME_{name}", value)
    with pytest.raises(ValidationError):
        Settings()


def test_a_request_that_could_never_be_admitted_is_a_contradiction():
    with pytest.raises(ValidationError, match="max_rows exceeds max_queue_rows"):
        Settings(max_rows=100, max_queue_rows=10)


def test_every_setting_is_documented():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
