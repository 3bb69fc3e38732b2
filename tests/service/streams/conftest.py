"""What all tests of streams use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle import Bundle
from tests.service.server import Server
from tests.service.streams.sockets import stream_server
from tests.tiny_stream import write_stream


@pytest.fixture
def bundle(models: Path) -> Bundle:
    return write_stream(models)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests that leave nothing behind."""
    with stream_server(tmp_path_factory.mktemp("models")) as running:
        yield running
