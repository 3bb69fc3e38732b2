"""The clients' side of GET /stream: chunks out, events in, on websockets."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Mapping
from contextlib import aclosing
from typing import Any, NoReturn, TypedDict
from urllib.parse import urlencode

import numpy as np
import orjson
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from service import npy
from service.anytime_error import AnytimeError, raise_problem
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
    base_url: str, headers: Mapping[str, str], chunks: Iterable[Any], knobs: Mapping[str, Any]
) -> Iterator[StreamEvent]:
    """See `AnytimeClient.stream`."""
    try:
        connection = connect(_url(base_url, knobs), additional_headers=headers, compression=None)
    except InvalidStatus as refusal:
        _refused(refusal)
    with connection as wire:
        wire.recv()  # What the stream is: nobody here has to be told.
        for chunk in chunks:
            wire.send(_encode(chunk))
            event = _decode(wire.recv())
            yield event
            if event.event == "final":
                return
        wire.send(END)
        yield _decode(wire.recv())


async def stream_async(
    base_url: str, headers: Mapping[str, str], chunks: Iterable[Any] | AsyncIterable[Any], knobs: Mapping[str, Any]
) -> AsyncGenerator[StreamEvent]:
    """See `AsyncAnytimeClient.stream`."""
    try:
        connection = await connect_async(_url(base_url, knobs), additional_headers=headers, compression=None)
    except InvalidStatus as refusal:
        _refused(refusal)
    async with connection as wire, aclosing(_each(chunks)) as rest:
        await wire.recv()
        async for chunk in rest:
            await wire.send(_encode(chunk))
            event = _decode(await wire.recv())
            yield event
            if event.event == "final":
                return
        await wire.send(END)
        yield _decode(await wire.recv())


async def _each(chunks: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any]:
    if isinstance(chunks, AsyncIterable):
        async for chunk in chunks:
            yield chunk
    else:
        for chunk in chunks:
            yield chunk


def _url(base_url: str, knobs: Mapping[str, Any]) -> str:
    given = {name: value for name, value in knobs.items() if value is not None}
    query = urlencode({name: ",".join(value) if name == "outputs" else value for name, value in given.items()})
    # http becomes ws, https becomes wss.
    return f"ws{base_url.rstrip('/').removeprefix('http')}/stream?{query}"


def _encode(chunk: Any) -> bytes | str:  # noqa: ANN401
    return npy.encode(chunk) if isinstance(chunk, np.ndarray) else orjson.dumps({"inputs": chunk}).decode()


def _decode(message: str | bytes) -> StreamEvent:
    document = orjson.loads(message)
    if document["event"] == "error":
        raise AnytimeError(document["status"], document["code"], document["detail"], document)
    return StreamEvent.model_validate(document)


def _refused(refusal: InvalidStatus) -> NoReturn:
    answer = refusal.response
    raise_problem(answer.status_code, answer.reason_phrase, answer.headers.get("content-type"), bytes(answer.body))
