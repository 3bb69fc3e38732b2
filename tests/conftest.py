"""Fixtures shared by all rooms."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from bundle import Bundle
from service.engine.providers import has_cuda_driver
from tests.tiny import write_tiny

settings.register_profile("repeatable", derandomize=True)
# What passes here passes there; `make fuzz` looks for what these examples miss.
settings.load_profile("repeatable")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """An empty models folder."""
    return tmp_path / "models"


@pytest.fixture
def tiny(models: Path) -> Bundle:
    """Three connected members over four float32 features."""
    return write_tiny(models)


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
