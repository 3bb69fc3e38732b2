"""The clients' side of GET /stream: chunks out, events in, on websockets."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Mapping
from contextlib import aclosing, suppress
from ssl import SSLContext
from typing import Any, NoReturn, TypedDict

import numpy as np
import orjson
from websockets.asyncio.client import ClientConnection as AsyncClientConnection
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from service import npy
from service.anytime_error import AnytimeError, raise_problem
from service.calls import query_of, to_json
from service.schema import Output
from service.stream_schemas import StreamEvent

END = '{"end":true}'


class StreamKnobs(TypedDict, total=False):
    """What a stream may ask for; see `service.schemas.StreamKnobs`."""

    model: str | None
    version: int | None
    deadline_ms: float | None
    exit_confidence: float | None
    outputs: Iterable[Output]


def stream(
    base_url: str, headers: Mapping[str, str], ssl: SSLContext | None, chunks: Iterable[Any], knobs: Mapping[str, Any]
) -> Generator[StreamEvent]:
    """See `AnytimeClient.stream`."""
    try:
        connection = connect(_url(base_url, knobs), additional_headers=headers, compression=None, **_tls(base_url, ssl))
    except InvalidHandshake as refusal:
        _refused(refusal)
    with connection as wire:
        wire.recv()  # What the stream is: nobody here has to be told.
        for chunk in chunks:
            event = _exchange(wire, _encode(chunk))
            yield event
            if event.event == "final":
                return
        yield _exchange(wire, END)


def _exchange(wire: ClientConnection, message: bytes | str) -> StreamEvent:
    # Who ends a stream says why first, and that can be read after the connection has gone.
    with suppress(ConnectionClosed):
        wire.send(message)
    return _decode(wire.recv())


async def stream_async(
    base_url: str,
    headers: Mapping[str, str],
    ssl: SSLContext | None,
    chunks: Iterable[Any] | AsyncIterable[Any],
    knobs: Mapping[str, Any],
) -> AsyncGenerator[StreamEvent]:
    """See `AsyncAnytimeClient.stream`."""
    try:
        connection = await connect_async(
            _url(base_url, knobs), additional_headers=headers, compression=None, **_tls(base_url, ssl)
        )
    except InvalidHandshake as refusal:
        _refused(refusal)
    async with connection as wire, aclosing(_each(chunks)) as rest:
        await wire.recv()
        async for chunk in rest:
            event = await _exchange_async(wire, _encode(chunk))
            yield event
            if event.event == "final":
                return
        yield await _exchange_async(wire, END)


async def _exchange_async(wire: AsyncClientConnection, message: bytes | str) -> StreamEvent:
    with suppress(ConnectionClosed):
        await wire.send(message)
    return _decode(await wire.recv())


async def _each(chunks: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any]:
    if isinstance(chunks, AsyncIterable):
        async for chunk in chunks:
            yield chunk
    else:
        for chunk in chunks:
            yield chunk


def _url(base_url: str, knobs: Mapping[str, Any]) -> str:
    query = query_of({name: value for name, value in knobs.items() if value is not None})
    # http becomes ws, https becomes wss.
    return f"ws{base_url.rstrip('/').removeprefix('http')}/stream?{query}"


def _tls(base_url: str, ssl: SSLContext | None) -> dict[str, Any]:
    """What `connect` is told of TLS: nothing, unless there is something to tell beyond the address."""
    return {} if ssl is None or not base_url.startswith("https") else {"ssl": ssl}


def _encode(chunk: Any) -> bytes | str:  # noqa: ANN401
    return npy.encode(chunk) if isinstance(chunk, np.ndarray) else to_json({"inputs": chunk}).decode()


def _decode(message: str | bytes) -> StreamEvent:
    document = orjson.loads(message)
    if document["event"] == "error":
        raise AnytimeError(document["status"], document["code"], document["detail"], document)
    return StreamEvent.model_validate(document)


def _refused(refusal: InvalidHandshake) -> NoReturn:
    if not isinstance(refusal, InvalidStatus):
        # What answered, if anything did, speaks no HTTP; or the server was about to end.
        raise ConnectionError(f"No WebSocket could be opened: {refusal}.") from refusal
    answer = refusal.response
    raise_problem(answer.status_code, answer.reason_phrase, answer.headers.get("content-type"), bytes(answer.body))
