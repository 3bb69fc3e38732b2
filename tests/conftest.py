"""Fixtures shared by all rooms."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundle import Bundle
from tests.tiny import write_tiny


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """An empty models folder."""
    return tmp_path / "models"


@pytest.fixture
def tiny(models: Path) -> Bundle:
    """Three connected members over four float32 features."""
    return write_tiny(models)
