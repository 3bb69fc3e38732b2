"""The clients, whatever their caller does to them, against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import suppress

import httpx
import pytest

from service.client import AsyncAnytimeClient
from tests.service.server import Server, serving_tiny
from tests.tiny import samples

TURNS = 40
"""Of the event loop: more than an exchange takes without its waits for the network."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving_tiny(tmp_path_factory.mktemp("models")) as running:
        yield running


async def cancelled_after(turns: int, asked: Awaitable[object]) -> None:
    """Cancel a task when the loop has turned so often since it was made."""
    task = asyncio.ensure_future(asked)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def streamed(client: AsyncAnytimeClient) -> int:
    return len([event async for event in client.predict_stream(samples(1))])


@pytest.mark.anyio
@pytest.mark.parametrize("way", ["whole", "streamed"])
async def test_a_cancelled_request_costs_the_pool_no_connection(server: Server, way: str):
    # Who finds the only connection taken is told so at once.
    limits, timeout = httpx.Limits(max_connections=1), httpx.Timeout(None, pool=0.0)
    for turns in range(TURNS):
        http = httpx.AsyncClient(base_url=server.url, limits=limits, timeout=timeout)
        async with AsyncAnytimeClient(http=http) as client:
            for _ in range(2):  # on a new connection, and where there was one, on that
                asked = client.predict(samples(1)) if way == "whole" else streamed(client)
                await cancelled_after(turns, asked)
                assert (await client.predict(samples(1))).members_used == 3
