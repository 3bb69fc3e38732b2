"""The clients' `stream`, against a real server."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest

from bundle import Bundle
from service.app import create_app
from service.client import AnytimeClient, AnytimeError, AsyncAnytimeClient
from tests.service.server import Server, serving
from tests.service.streams.sockets import (
    KEY,
    bundle_of,
    chunks,
    nothing_left,
    reference,
    settings,
)
from tests.tiny_stream import CHUNK_STEPS, STEPS, sequences


def test_the_client_yields_an_answer_for_each_chunk(shared: Server):
    x = sequences(1)[0]
    expected = reference(bundle_of(shared), x)
    with AnytimeClient(shared.url) as client:
        events = list(client.stream(chunks(x), model="stream", outputs=["logits"]))
        assert [(event.event, event.steps) for event in events] == [("chunk", 2), ("chunk", 4), ("final", 6)]
        np.testing.assert_allclose(events[-1].logits, expected[STEPS, 3], rtol=1e-5, atol=1e-5)
        lists = list(client.stream([chunk.tolist() for chunk in chunks(x)[:2]], model="stream"))
        assert [(event.event, event.steps, event.ended_by) for event in lists] == [
            ("chunk", 2, None),
            ("chunk", 4, None),
            ("final", 4, "end"),
        ]
        (confident,) = client.stream(iter(chunks(x)), model="stream", exit_confidence=0.01)
        assert confident.ended_by == "exit_confidence"


def test_the_client_hangs_up_when_nobody_listens(shared: Server):
    with AnytimeClient(shared.url) as client:
        events = client.stream(chunks(sequences(1)[0]), model="stream")
        assert next(events).steps == CHUNK_STEPS
        events.close()
    nothing_left(shared)


def test_the_client_raises_problems(shared: Server):
    with AnytimeClient(shared.url) as client:
        with pytest.raises(AnytimeError, match="has no chunk graphs") as caught:
            next(client.stream([], model="tiny"))
        assert (caught.value.status, caught.value.code) == (422, "not_streamable")
        with pytest.raises(AnytimeError) as caught:
            list(client.stream([np.zeros((1, 1), np.float32)], model="stream"))
        assert (caught.value.status, caught.value.code) == (422, "wrong_shape")


def hang_up(listener: socket.socket) -> None:
    """Take one connection, and close it when its request has come."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(2**16)


def test_who_answers_no_upgrade_is_no_connection():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=hang_up, args=[listener]).start()
        with (
            AnytimeClient(f"http://127.0.0.1:{listener.getsockname()[1]}") as client,
            pytest.raises(ConnectionError, match="No WebSocket could be opened"),
        ):
            next(client.stream([]))


@pytest.mark.anyio
async def test_nor_is_it_for_the_asynchronous_client():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=hang_up, args=[listener]).start()
        async with AsyncAnytimeClient(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            with pytest.raises(ConnectionError, match="No WebSocket could be opened"):
                await anext(client.stream([]))


def ended_between_chunks(server: Server, x: np.ndarray) -> Iterator[np.ndarray]:
    """The second chunk comes when the service has ended the stream, and told why."""
    first, second, *_ = chunks(x)
    yield first
    server.terminate()
    while len(server.context.streams):
        pass
    yield second


def test_what_ended_the_stream_between_chunks_is_told(bundle: Bundle, models: Path):
    with serving(create_app(settings(models))) as server, AnytimeClient(server.url) as client:
        *_, last = client.stream(ended_between_chunks(server, sequences(1)[0]), model="stream")
        assert (last.event, last.ended_by) == ("final", "shutdown")


@pytest.mark.anyio
async def test_the_asynchronous_client_is_told_too(bundle: Bundle, models: Path):
    with serving(create_app(settings(models))) as server:
        async with AsyncAnytimeClient(server.url) as client:
            source = ended_between_chunks(server, sequences(1)[0])
            *_, last = [event async for event in client.stream(source, model="stream")]
        assert (last.event, last.ended_by) == ("final", "shutdown")


@pytest.mark.anyio
async def test_the_asynchronous_client_does_the_same(shared: Server):
    x = sequences(1)[0]

    async def coming() -> AsyncIterator[np.ndarray]:
        for chunk in chunks(x):
            yield chunk

    async with AsyncAnytimeClient(shared.url) as client:
        for source in (coming(), chunks(x)):
            steps = [event.steps async for event in client.stream(source, model="stream", deadline_ms=60_000)]
            assert steps == [2, 4, 6]
        with pytest.raises(AnytimeError) as caught:
            await anext(client.stream([], model="absent"))
        assert caught.value.code == "unknown_model"


def test_the_client_brings_its_key(bundle: Bundle, models: Path):
    app = create_app(settings(models, api_keys=KEY))
    with serving(app, ready=False) as server, AnytimeClient(server.url, api_key=KEY) as client:
        while not client.ready():
            pass
        assert [event.ended_by for event in client.stream([])] == ["end"]
