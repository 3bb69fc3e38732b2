"""Streams in tests: a server for them, and the client's side message by message."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from bundle import Bundle
from bundle.reference import running_average_chunks
from service import npy
from service.app import create_app
from service.settings import Settings
from tests.service.server import Server, serving
from tests.tiny import write_tiny
from tests.tiny_stream import CHUNK_STEPS, write_stream

KEY = "a-key-of-some-length"


class Socket:
    """An open stream."""

    def __init__(self, wire: ClientConnection) -> None:
        self.wire = wire
        self.opening = self.event()

    def event(self) -> dict[str, Any]:
        return json.loads(self.wire.recv(timeout=60))

    def send(self, chunk: np.ndarray) -> dict[str, Any]:
        self.wire.send(npy.encode(chunk))
        return self.event()

    def say(self, **fields: Any) -> None:
        self.wire.send(json.dumps(fields))

    def closed(self) -> int:
        """The code with which the server closes; nothing else comes before."""
        with pytest.raises(ConnectionClosed):
            self.wire.recv(timeout=60)
        assert self.wire.close_code is not None
        return self.wire.close_code


@contextmanager
def opened(server: Server, headers: dict[str, str] | None = None, **query: Any) -> Iterator[Socket]:
    url = f"{server.url.replace('http', 'ws', 1)}/stream?{urlencode(query)}"
    with connect(url, additional_headers=headers, compression=None, proxy=None) as wire:
        yield Socket(wire)


def settings(folder: Path, served: tuple[str, ...] = ("stream",), **changes: Any) -> Settings:
    return Settings(models_dir=folder, models=served, device="cpu", cpu_threads=1, max_batch_rows=8, **changes)


@contextmanager
def stream_server(models: Path) -> Iterator[Server]:
    """A server with a bundle that streams and one that does not; at the end nothing may be left."""
    write_stream(models)
    write_tiny(models)
    with serving(create_app(settings(models, max_message_bytes=4000, served=()))) as running:
        yield running
        nothing_left(running)


def nothing_left(server: Server) -> None:
    """No stream, no request, no lease, and nothing that the device still works on."""
    while len(server.context.streams) or server.context.gate.requests_in_flight:
        httpx.get(f"{server.url}/readyz")
    server.idle()
    assert server.context.streams._size == 0
    assert server.context.worker._unsettled == set()
    assert not server.context.worker._scheduler._arrears
    assert [one.leases for one in server.context.deployments.all()] == [0] * len(server.context.deployments.all())


def metric(server: Server, name: str, **labels: str) -> float:
    return server.context.metrics.registry.get_sample_value(f"anytime_{name}", labels) or 0.0


def chunks(x: np.ndarray) -> list[np.ndarray]:
    return [x[at : at + CHUNK_STEPS] for at in range(0, len(x), CHUNK_STEPS)]


def reference(bundle: Bundle, x: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    return {(one.steps, one.members): one.logits[0] for one in running_average_chunks(bundle, x[None])}


def bundle_of(server: Server) -> Bundle:
    return server.context.deployments.find("stream").bundle
