"""The client's side of a stream, message by message."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from service import npy
from tests.service.server import Server


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
