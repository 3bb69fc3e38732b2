"""A server process to measure, and a connection that costs the measurement little."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import orjson


class ServerDied(Exception):
    """The server ended before it was ready; the message holds the last lines of its log."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is ready."""

    address: str
    pid: int

    def resident_mib(self) -> float:
        """Memory of the process, in MiB."""
        fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def serving(folder: Path, /, module: Sequence[str] = ("service",), **settings: object) -> Iterator[Running]:
    """Run `serve-ensemble` on a free port until the block ends; yields it once it is ready.

    Args:
        folder: of bundles.
        module: what to run instead, with its arguments.
        settings: of the service, as in `max_rows=512`.
    """
    environment = {f"ANYTIME_{name.upper()}": str(value) for name, value in settings.items()}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ANYTIME_")}
    command = [sys.executable, "-m", *module]
    # The log tells when it is ready.
    environment = {"ANYTIME_PORT": "0", "ANYTIME_MODELS_DIR": str(folder), **environment, "ANYTIME_LOG_LEVEL": "info"}
    with subprocess.Popen(command, env=inherited | environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = _await_ready(process)
            # A full pipe would stop the server at its next line of log.
            threading.Thread(target=process.stderr.read if process.stderr else None, daemon=True).start()
            yield Running(address, process.pid)
        finally:
            process.terminate()


def _await_ready(process: subprocess.Popen[str]) -> str:
    lines: list[str] = []
    address = ""
    for line in process.stderr or ():
        lines.append(line)
        message = json.loads(line)["message"] if line.startswith("{") else ""
        if message.startswith("Uvicorn running on "):
            address = message.split()[3]
        if message == "ready":
            return address
    raise ServerDied("".join(lines[-5:]))


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer and how long the client waited for it."""

    status: int
    document: dict[str, Any]
    seconds: float
    """From before the first byte was sent until the last was read."""


class Wire:
    """One kept-alive connection of the standard library: a hundred microseconds less than a full client."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(address).netloc)

    def predict(self, body: bytes) -> Reply:
        """Send a prepared body to /predict."""
        started = time.perf_counter()
        self._connection.request("POST", "/predict", body, {"content-type": "application/json"})
        response = self._connection.getresponse()
        content = response.read()
        seconds = time.perf_counter() - started
        return Reply(response.status, orjson.loads(content), seconds)

    def get(self, path: str) -> dict[str, Any]:
        """A JSON document."""
        document: dict[str, Any] = orjson.loads(self.get_text(path))
        return document

    def get_text(self, path: str) -> str:
        """A document of any kind."""
        self._connection.request("GET", path)
        return self._connection.getresponse().read().decode()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def body(inputs: npt.NDArray[Any], **fields: object) -> bytes:
    """A request for /predict."""
    return orjson.dumps({"inputs": np.ascontiguousarray(inputs), **fields}, option=orjson.OPT_SERIALIZE_NUMPY)
