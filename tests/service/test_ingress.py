from __future__ import annotations

import re
from contextlib import nullcontext
from itertools import islice
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from starlette.types import Receive, Scope, Send

from service.access import Access
from service.connection import CONNECTION, Connection
from service.ingress import HARMLESS, IDS_AT_ONCE, Ingress, _new_ids
from service.protocol import ARRIVED
from tests.fakes import FakeClock


def test_ids_are_new_and_harmless_from_one_batch_to_the_next():
    ids = list(islice(_new_ids(), 3 * IDS_AT_ONCE))
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[0-9a-f]{32}", one) and HARMLESS.fullmatch(one.encode()) for one in ids)


@pytest.mark.anyio
@pytest.mark.parametrize(("state", "arrived"), [({ARRIVED: 7.0}, 7.0), ({}, 1000.0)])
async def test_the_time_a_request_waited_for_its_task_counts(state: dict[str, Any], arrived: float):
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["state"]["visit"].arrived)

    ingress = Ingress(app, FakeClock(1000.0), Access(), 100, Mock(), Mock())
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": [], "state": state}
    await ingress(scope, Mock(), Mock())
    assert seen == [arrived]


@pytest.mark.anyio
@pytest.mark.parametrize("accepted", [False, True])
async def test_an_upgrade_that_fails_is_answered_as_a_problem_unless_it_is_open(accepted: bool):
    sent: list[dict[str, Any]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if accepted:
            await send({"type": "websocket.accept"})
        raise ZeroDivisionError

    async def send(message: Any) -> None:
        sent.append(message)

    rejected = Mock()
    ingress = Ingress(app, FakeClock(), Access(), 100, Mock(), rejected)
    scope = {"type": "websocket", "path": "/stream", "headers": [], "extensions": {"websocket.http.response": {}}}
    with pytest.raises(ZeroDivisionError) if accepted else nullcontext():
        await ingress(scope, Mock(), send)
    if not accepted:
        assert (sent[0]["type"], sent[0]["status"]) == ("websocket.http.response.start", 500)
        rejected.assert_called_once_with("internal_error")


@pytest.mark.anyio
@pytest.mark.parametrize("clogged", [False, True])
async def test_an_answer_that_waits_for_its_reader_is_known(clogged: bool):
    connection, answered = Connection(), Mock()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        connection.clogged = clogged
        await send({"type": "http.response.body", "body": b"x"})

    ingress = Ingress(app, FakeClock(), Access(), 100, answered, Mock())
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "state": {CONNECTION: connection}}
    await ingress(scope, Mock(), AsyncMock())
    (visit, _) = answered.call_args.args
    assert visit.held_up == clogged


@pytest.mark.anyio
async def test_an_error_in_the_middle_of_an_answer_is_counted_and_cuts_it_off():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    rejected = Mock()
    ingress = Ingress(app, FakeClock(), Access(), 100, Mock(), rejected)
    with pytest.raises(ZeroDivisionError):
        await ingress({"type": "http", "method": "GET", "path": "/", "headers": []}, Mock(), AsyncMock())
    rejected.assert_called_once_with("internal_error")
