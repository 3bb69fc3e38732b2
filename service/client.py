"""Clients of the service, for threads and for asyncio, on httpx; streams on websockets.

What goes over the wire is decided once, by the functions at the end; the two classes only send it.

    with AnytimeClient("http://127.0.0.1:8000") as client:
        answer = client.predict(samples, deadline_ms=20)
        print(answer.members_used, answer.predictions[0].index)

Arrays travel as they are in memory, in .npy form; lists travel as JSON.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, NoReturn, Self, TypedDict, TypeVar, Unpack
from urllib.parse import quote, urlencode

import httpx
import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel

from service import npy, stream_client
from service.anytime_error import AnytimeError, raise_problem
from service.model_schemas import ModelCard, ModelList
from service.schema import Output
from service.schemas import AnswerHead, FeedbackResponse, Label, PredictResponse, Progress
from service.stream_client import StreamKnobs
from service.stream_schemas import StreamEvent

__all__ = ["AnytimeClient", "AnytimeError", "ArrayAnswer", "AsyncAnytimeClient"]

Samples = npt.NDArray[Any] | Sequence[Any]
Answer = TypeVar("Answer", bound=BaseModel)

GRACE_S = 5.0
"""How long past a request's deadline the client waits for the server before it gives up on the connection."""


class Budget(TypedDict, total=False):
    """What a request that goes on from an answer may say; see `service.schemas.ContinueRequest`."""

    deadline_ms: float | None
    max_members: int | None
    outputs: Sequence[Output]
    keep_ms: float | None


class Knobs(Budget, total=False):
    """What a request may say beside its samples; see `service.schemas.Knobs`."""

    model: str | None
    version: int | None


@dataclass(frozen=True, slots=True)
class ArrayAnswer:
    """An answer in binary form."""

    head: AnswerHead
    values: npt.NDArray[np.float32]
    """Probabilities or logits, (rows, classes); of a regression its values (rows, outputs)."""


class AnytimeClient:
    """Blocking client; one connection pool, safe to share between threads.

    Args:
        base_url: where the server is.
        api_key: sent with each request, if the server wants one.
        http: an httpx client to use instead of a new one; for TLS, proxies, tests.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        self._http = http or httpx.Client(base_url=base_url, timeout=None)
        self._http.headers.update(_authorization(api_key))

    def predict(self, inputs: Samples, *, request_id: str | None = None, **knobs: Unpack[Knobs]) -> PredictResponse:
        """The best answer by the deadline.

        Raises:
            AnytimeError: the server answered with a problem document.
            httpx.TransportError: there was no answer.
        """
        return _read(self._http.post(**_predict("/predict", inputs, request_id, knobs)), PredictResponse)

    def predict_array(self, inputs: Samples, *, request_id: str | None = None, **knobs: Unpack[Knobs]) -> ArrayAnswer:
        """As `predict`, but the answer too is one array: probabilities, or logits if `outputs` says so."""
        request = _accepting_npy(_predict("/predict", inputs, request_id, knobs))
        return _read_array(self._http.post(**request))

    def predict_stream(
        self, inputs: Samples, *, request_id: str | None = None, **knobs: Unpack[Knobs]
    ) -> Iterator[Progress | PredictResponse]:
        """As `predict`, but yields each prefix as it is finished; the last one yielded is the answer.

        Raises:
            AnytimeError: the server answered with a problem document.
            httpx.TransportError: the stream ended before the answer.
        """
        with self._http.stream("POST", **_predict("/predict/stream", inputs, request_id, knobs)) as response:
            if not response.is_success:
                response.read()
                _raise(response)
            events = _Events()
            for line in response.iter_lines():
                yield from events.feed(line)

    def stream(self, chunks: Iterable[Samples], **knobs: Unpack[StreamKnobs]) -> Iterator[StreamEvent]:
        """Send a sequence chunk by chunk over a WebSocket, and yield the answer to each; the last one is `final`.

        A chunk is taken from `chunks` when the one before has been answered. Whoever stops iterating hangs up.

        Raises:
            AnytimeError: the server refused the stream, or ended it with a problem.
            websockets.ConnectionClosed: the connection was lost before the last answer.
            OSError: there was no connection.
        """
        yield from stream_client.stream(str(self._http.base_url), _credentials(self._http.headers), chunks, knobs)

    def continue_(self, request_id: str, **budget: Unpack[Budget]) -> PredictResponse:
        """A better answer to a request that was kept (`keep_ms`).

        Raises:
            AnytimeError: the server answered with a problem document; `state_gone` if there is nothing to go on from.
            httpx.TransportError: there was no answer.
        """
        return _read(self._http.post(**_continue(request_id, budget)), PredictResponse)

    def feedback(self, request_id: str, labels: Sequence[Label]) -> FeedbackResponse:
        """Tell the server the true labels of an answered request."""
        return _read(self._http.post(**_feedback(request_id, labels)), FeedbackResponse)

    def load(self, name: str, version: int | None = None) -> ModelCard:
        """Let the server serve another version (default: the highest); returns when requests go to it."""
        return _read(self._http.post(**_version(name, "load", version)), ModelCard)

    def unload(self, name: str, version: int | None = None) -> list[ModelCard]:
        """Let the server serve a bundle, or one version of it, no more: what is left."""
        return _read(self._http.post(**_version(name, "unload", version)), ModelList).models

    def models(self) -> list[ModelCard]:
        """All served bundles."""
        return _read(self._http.get("/models"), ModelList).models

    def ready(self) -> bool:
        """Whether the server takes traffic; False while it cannot be reached."""
        try:
            return self._http.get("/readyz").is_success
        except httpx.TransportError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncAnytimeClient:
    """Client for asyncio; the same methods as `AnytimeClient`, awaited."""

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._http = http or httpx.AsyncClient(base_url=base_url, timeout=None)
        self._http.headers.update(_authorization(api_key))

    async def predict(
        self, inputs: Samples, *, request_id: str | None = None, **knobs: Unpack[Knobs]
    ) -> PredictResponse:
        """See `AnytimeClient.predict`."""
        return _read(await self._http.post(**_predict("/predict", inputs, request_id, knobs)), PredictResponse)

    async def predict_array(
        self, inputs: Samples, *, request_id: str | None = None, **knobs: Unpack[Knobs]
    ) -> ArrayAnswer:
        """See `AnytimeClient.predict_array`."""
        request = _accepting_npy(_predict("/predict", inputs, request_id, knobs))
        return _read_array(await self._http.post(**request))

    async def predict_stream(
        self, inputs: Samples, *, request_id: str | None = None, **knobs: Unpack[Knobs]
    ) -> AsyncIterator[Progress | PredictResponse]:
        """See `AnytimeClient.predict_stream`."""
        async with self._http.stream("POST", **_predict("/predict/stream", inputs, request_id, knobs)) as response:
            if not response.is_success:
                await response.aread()
                _raise(response)
            events = _Events()
            async for line in response.aiter_lines():
                for event in events.feed(line):
                    yield event

    async def stream(
        self, chunks: Iterable[Samples] | AsyncIterable[Samples], **knobs: Unpack[StreamKnobs]
    ) -> AsyncIterator[StreamEvent]:
        """See `AnytimeClient.stream`."""
        base_url, credentials = str(self._http.base_url), _credentials(self._http.headers)
        async with aclosing(stream_client.stream_async(base_url, credentials, chunks, knobs)) as events:
            async for event in events:
                yield event

    async def continue_(self, request_id: str, **budget: Unpack[Budget]) -> PredictResponse:
        """See `AnytimeClient.continue_`."""
        return _read(await self._http.post(**_continue(request_id, budget)), PredictResponse)

    async def feedback(self, request_id: str, labels: Sequence[Label]) -> FeedbackResponse:
        """See `AnytimeClient.feedback`."""
        return _read(await self._http.post(**_feedback(request_id, labels)), FeedbackResponse)

    async def load(self, name: str, version: int | None = None) -> ModelCard:
        """See `AnytimeClient.load`."""
        return _read(await self._http.post(**_version(name, "load", version)), ModelCard)

    async def unload(self, name: str, version: int | None = None) -> list[ModelCard]:
        """See `AnytimeClient.unload`."""
        return _read(await self._http.post(**_version(name, "unload", version)), ModelList).models

    async def models(self) -> list[ModelCard]:
        """See `AnytimeClient.models`."""
        return _read(await self._http.get("/models"), ModelList).models

    async def ready(self) -> bool:
        """See `AnytimeClient.ready`."""
        try:
            return (await self._http.get("/readyz")).is_success
        except httpx.TransportError:
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


class _Events:
    """Server-sent events out of lines, as this service sends them: one `event` and one `data` line each."""

    KINDS: ClassVar[dict[str, type[Progress] | type[PredictResponse]]] = {
        "prefix": Progress,
        "answer": PredictResponse,
    }

    def __init__(self) -> None:
        self._kind = ""

    def feed(self, line: str) -> list[Progress | PredictResponse]:
        """The event that this line completes, if it does."""
        name, _, value = line.partition(": ")
        if name == "event":
            self._kind = value
        return [self.KINDS[self._kind].model_validate_json(value)] if name == "data" else []


def _authorization(api_key: str | None) -> dict[str, str]:
    return {} if api_key is None else {"authorization": f"Bearer {api_key}"}


def _credentials(headers: httpx.Headers) -> dict[str, str]:
    """What of a client's headers says who it is: all that a WebSocket takes over."""
    return {name: value for name, value in headers.items() if name in {"authorization", "x-api-key"}}


def _predict(url: str, inputs: Samples, request_id: str | None, knobs: Knobs) -> dict[str, Any]:
    given = {name: value for name, value in knobs.items() if value is not None}
    if isinstance(inputs, np.ndarray):
        request = _post_array(url, inputs, given)
    else:
        request = _post(url, {"inputs": inputs, **given})
    if request_id is not None:
        request["headers"]["x-request-id"] = request_id
    return request | _timeout(knobs.get("deadline_ms"))


def _continue(request_id: str, budget: Budget) -> dict[str, Any]:
    given = {name: value for name, value in budget.items() if value is not None}
    request = _post(f"/predict/{quote(request_id, safe='')}/continue", given)
    return request | _timeout(budget.get("deadline_ms"))


def _timeout(deadline_ms: float | None) -> dict[str, float]:
    return {} if deadline_ms is None else {"timeout": deadline_ms / 1e3 + GRACE_S}


def _feedback(request_id: str, labels: Sequence[Label]) -> dict[str, Any]:
    return _post("/feedback", {"request_id": request_id, "labels": list(labels)})


def _version(name: str, verb: str, version: int | None) -> dict[str, Any]:
    return {"url": f"/models/{name}/{verb}", "params": {} if version is None else {"version": version}}


def _post(url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    content = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    return {"url": url, "content": content, "headers": {"content-type": "application/json"}}


def _post_array(url: str, inputs: npt.NDArray[Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    query = urlencode({name: ",".join(value) if name == "outputs" else value for name, value in fields.items()})
    return {
        "url": f"{url}?{query}" if query else url,
        "content": npy.encode(inputs),
        "headers": {"content-type": npy.MEDIA_TYPE},
    }


def _accepting_npy(request: dict[str, Any]) -> dict[str, Any]:
    request["headers"]["accept"] = npy.MEDIA_TYPE
    return request


def _read(response: httpx.Response, schema: type[Answer]) -> Answer:
    if not response.is_success:
        _raise(response)
    return schema.model_validate_json(response.content)


def _read_array(response: httpx.Response) -> ArrayAnswer:
    if not response.is_success:
        _raise(response)
    head = AnswerHead.model_validate_json(response.headers["anytime-answer"])
    return ArrayAnswer(head, npy.decode(response.content))


def _raise(response: httpx.Response) -> NoReturn:
    raise_problem(response.status_code, response.reason_phrase, response.headers.get("content-type"), response.content)
