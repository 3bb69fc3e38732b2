from __future__ import annotations

import asyncio

import pytest
from starlette.requests import Request

from service.connection import CONNECTION, Connection, hang_up

pytestmark = pytest.mark.anyio


async def test_all_requests_of_a_connection_learn_that_the_client_has_gone():
    connection, told = Connection(), list[str]()
    connection.watch(lambda: told.append("first"))
    connection.watch(lambda: told.append("second"))
    assert told == []
    connection.lost()
    assert told == ["first", "second"]
    connection.watch(lambda: told.append("afterwards"))
    assert told == ["first", "second", "afterwards"], "also one that asks afterwards"


async def test_who_stops_watching_is_not_told_and_leaves_nothing_behind():
    connection, told = Connection(), list[str]()
    for number in range(100):
        ignore = connection.watch(lambda number=number: told.append(str(number)))
        if number != 50:
            ignore()
    assert len(connection._watchers) == 1
    connection.lost()
    assert told == ["50"]


async def test_who_is_told_may_stop_others_from_watching():
    connection, told = Connection(), list[str]()
    ignore = connection.watch(lambda: told.append("first"))
    connection.watch(ignore)
    connection.lost()
    assert told == ["first"]


@pytest.mark.parametrize("knows", [True, False])
async def test_a_request_learns_it_under_any_server(knows: bool):
    gone = asyncio.Event()
    connection = Connection()

    async def receive() -> dict[str, str]:
        await gone.wait()
        return {"type": "http.disconnect"}

    state = {CONNECTION: connection} if knows else {}
    told, ignored = asyncio.Event(), asyncio.Event()
    watch = hang_up(Request({"type": "http", "state": state}, receive))
    watch(told.set)
    watch(ignored.set)()
    await asyncio.sleep(0)
    assert not told.is_set()
    connection.lost() if knows else gone.set()
    await told.wait()
    await asyncio.sleep(0)
    assert not ignored.is_set(), "who does not listen any more"
