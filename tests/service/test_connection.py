from __future__ import annotations

import asyncio

import pytest
from starlette.requests import Request

from service.connection import CONNECTION, Connection, hang_up

pytestmark = pytest.mark.anyio


async def test_all_requests_of_a_connection_learn_that_the_client_has_gone():
    connection = Connection()
    first, second = connection.watch(), connection.watch()
    assert not first.done()
    connection.lost()
    assert first.done()
    assert second.done()
    assert connection.watch().done(), "also one that asks afterwards"


async def test_who_stops_watching_leaves_nothing_behind():
    connection = Connection()
    for _ in range(100):
        connection.watch().cancel()
    await asyncio.sleep(0)
    assert connection._watchers == set()
    connection.lost()


@pytest.mark.parametrize("knows", [True, False])
async def test_a_request_learns_it_under_any_server(knows: bool):
    gone = asyncio.Event()
    connection = Connection()

    async def receive() -> dict[str, str]:
        await gone.wait()
        return {"type": "http.disconnect"}

    state = {CONNECTION: connection} if knows else {}
    waiting = asyncio.ensure_future(hang_up(Request({"type": "http", "state": state}, receive)))
    await asyncio.sleep(0)
    assert not waiting.done()
    connection.lost() if knows else gone.set()
    await waiting
