"""A real server on loopback, in a thread of the test's process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastapi import FastAPI

import service.server
from service.app import create_app
from service.client import AnytimeClient
from service.context import Context
from service.settings import Settings
from tests.tiny import write_tiny


class Server:
    """The address of a running server, and its inside."""

    def __init__(self, url: str, context: Context, process: service.server.Server) -> None:
        self.url = url
        self.context = context
        self._process = process

    def terminate(self) -> None:
        """What SIGTERM does: stop accepting, let requests in flight end."""
        self._process.should_exit = True

    def idle(self) -> None:
        """Return when the worker has nothing left to do, idle rehearsals included."""
        # A rehearsal may start between two messages, so the third answer comes after it.
        for _ in range(3):
            self.context.worker.call(lambda: None).result(60)


@contextmanager
def serving(app: FastAPI, *sockets: socket.socket, ready: bool = True) -> Iterator[Server]:
    """Run the app as `serve-ensemble` does, on a free port and on these sockets, until the block ends."""
    # Listening before the server starts: a client that comes early waits in the backlog, nobody polls.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = service.server.Server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener, *sockets]})
        thread.start()
        try:
            running = Server(f"http://127.0.0.1:{listener.getsockname()[1]}", app.state.context, server)
            if ready:
                _await_ready(running)
            yield running
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


@contextmanager
def serving_tiny(models: Path) -> Iterator[Server]:
    """Run a tiny bundle, written to `models`, on one thread of the CPU in steps of two rows at most."""
    write_tiny(models)
    with serving(create_app(Settings(models_dir=models, device="cpu", cpu_threads=1, max_batch_rows=2))) as running:
        yield running


def _await_ready(server: Server) -> None:
    with AnytimeClient(server.url) as client:
        while not client.ready():
            assert server.context.worker.alive, "warm-up failed"
