"""The bare rival as a process to measure."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.server import Running, ServerDied
from bundle import Bundle

START_S = 60.0


@contextmanager
def serving_bare(bundle: Bundle, members: int) -> Iterator[Running]:
    """`benchmarks.rivals.bare` on the first `members` of a bundle, until the block ends; yields it once it listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.rivals.bare", str(bundle.path), str(members), str(port)]
    with subprocess.Popen(command) as process:
        try:
            _await_listening(process, port)
            yield Running(f"http://127.0.0.1:{port}", process.pid)
        finally:
            process.terminate()


def _await_listening(process: subprocess.Popen[bytes], port: int) -> None:
    give_up = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < give_up:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise ServerDied("The bare server did not start.")
