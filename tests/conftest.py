"""Fixtures shared by all rooms."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundle import Bundle
from service.engine.alarm import Alarms
from service.engine.providers import has_cuda_driver
from tests.fakes import FakeClock
from tests.tiny import write_tiny


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """An empty models folder."""
    return tmp_path / "models"


@pytest.fixture
def tiny(models: Path) -> Bundle:
    """Three connected members over four float32 features."""
    return write_tiny(models)


@pytest.fixture(autouse=True)
def no_probes_by_fake_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timers of a real loop come early or late by any amount on a clock that moves when it is told to."""
    probe = Alarms.probe
    monkeypatch.setattr(Alarms, "probe", lambda self: None if type(self._clock) is FakeClock else probe(self))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if has_cuda_driver():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def anyio_backend() -> str:
    """Coroutine tests run on asyncio, as the service does."""
    return "asyncio"
