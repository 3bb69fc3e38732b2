"""Clients of the service, for threads and for asyncio, on httpx; streams on websockets.

What goes over the wire is decided once, in `service.calls`; the two classes only send it.

    with AnytimeClient("http://127.0.0.1:8000") as client:
        answer = client.predict(samples, deadline_ms=20)
        print(answer.members_used, answer.predictions[0].index)

Arrays travel as they are in memory, in .npy form; lists travel as JSON.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable
from contextlib import AsyncExitStack, aclosing
from ssl import SSLContext, create_default_context
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

from service import calls, stream_client
from service.anytime_error import AnytimeError
from service.calls import GRACE_S, PATIENT, ArrayAnswer, Budget, Knobs, Labels, Samples
from service.cancelling import orderly
from service.model_schemas import ModelCard, ModelList
from service.schemas import FeedbackResponse, PredictResponse, Progress
from service.stream_client import StreamKnobs
from service.stream_schemas import StreamEvent

__all__ = ["AnytimeClient", "AnytimeError", "ArrayAnswer", "AsyncAnytimeClient"]


class AnytimeClient:
    """Blocking client; one connection pool, safe to share between threads.

    It has at most 100 requests under way, as httpx does by default; a further one waits here, where its deadline has
    not begun yet. For more at once, give it an `http` with other limits.

    Args:
        base_url: where the server is.
        api_key: sent with each request, if the server wants one.
        ssl: whom to trust and who to be under TLS; by default what the system trusts.
        http: an httpx client to use for requests instead of a new one; for proxies, tests. If it has an address of its
            own, that holds.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        ssl: SSLContext | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        self._http = http or httpx.Client(timeout=PATIENT, verify=ssl or create_default_context())
        if not self._http.base_url.host:
            self._http.base_url = httpx.URL(base_url)
        self._ssl = ssl
        self._http.headers.update(calls.authorization(api_key))

    def predict(self, inputs: Samples, *, request_id: str | None = None, **knobs: Unpack[Knobs]) -> PredictResponse:
        """The best answer by the deadline.

        Raises:
            AnytimeError: the server answered with a problem document.
            httpx.TransportError: there was no answer.
            TypeError, ValueError: what is asked for cannot be sent.
        """
        return calls.read(self._http.post(**calls.predict("/predict", inputs, request_id, knobs)), PredictResponse)

    def predict_array(self, inputs: Samples, *, request_id: str | None = None, **knobs: Unpack[Knobs]) -> ArrayAnswer:
        """As `predict`, but the answer too is one array: probabilities, or logits if `outputs` says so."""
        request = calls.accepting_npy(calls.predict("/predict", inputs, request_id, knobs))
        return calls.read_array(self._http.post(**request))

    def predict_stream(
        self, inputs: Samples, *, request_id: str | None = None, **knobs: Unpack[Knobs]
    ) -> Generator[Progress | PredictResponse]:
        """As `predict`, but yields each prefix as it is finished; the last one yielded is the answer.

        Raises:
            AnytimeError: the server answered with a problem document.
            httpx.TransportError: the stream ended before the answer.
        """
        with self._http.stream("POST", **calls.predict("/predict/stream", inputs, request_id, knobs)) as response:
            if not response.is_success:
                response.read()
                calls.raise_answer(response)
            events = calls.Events()
            for content in response.iter_bytes():
                yield from events.feed(content)

    def stream(self, chunks: Iterable[Samples], **knobs: Unpack[StreamKnobs]) -> Generator[StreamEvent]:
        """Send a sequence chunk by chunk over a WebSocket, and yield the answer to each; the last one is `final`.

        A chunk is taken from `chunks` when the one before has been answered. Whoever stops iterating hangs up.

        Raises:
            AnytimeError: the server refused the stream, or ended it with a problem.
            websockets.ConnectionClosed: the connection was lost before the last answer.
            OSError: there was no connection.
        """
        base_url, credentials = str(self._http.base_url), calls.credentials(self._http.headers)
        yield from stream_client.stream(base_url, credentials, self._ssl, chunks, knobs)

    def continue_(self, request_id: str, **budget: Unpack[Budget]) -> PredictResponse:
        """A better answer to a request that was kept (`keep_ms`).

        Raises:
            AnytimeError: the server answered with a problem document; `state_gone` if there is nothing to go on from.
            httpx.TransportError: there was no answer.
        """
        return calls.read(self._http.post(**calls.continue_(request_id, budget)), PredictResponse)

    def feedback(self, request_id: str, labels: Labels) -> FeedbackResponse:
        """Tell the server the true labels of an answered request."""
        return calls.read(self._http.post(**calls.feedback(request_id, labels)), FeedbackResponse)

    def load(self, name: str, version: int | None = None) -> ModelCard:
        """Let the server serve another version (default: the highest); returns when requests go to it."""
        return calls.read(self._http.post(**calls.change(name, "load", version)), ModelCard)

    def unload(self, name: str, version: int | None = None) -> list[ModelCard]:
        """Let the server serve a bundle, or one version of it, no more: what is left."""
        return calls.read(self._http.post(**calls.change(name, "unload", version)), ModelList).models

    def models(self) -> list[ModelCard]:
        """All served bundles."""
        return calls.read(self._http.get("/models"), ModelList).models

    def ready(self) -> bool:
        """Whether the server takes traffic; False while it cannot be reached."""
        try:
            return self._http.get("/readyz", timeout=GRACE_S).is_success
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
        ssl: SSLContext | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._http = http or httpx.AsyncClient(timeout=PATIENT, verify=ssl or create_default_context())
        if not self._http.base_url.host:
            self._http.base_url = httpx.URL(base_url)
        self._ssl = ssl
        self._http.headers.update(calls.authorization(api_key))

    async def predict(
        self, inputs: Samples, *, request_id: str | None = None, **knobs: Unpack[Knobs]
    ) -> PredictResponse:
        """See `AnytimeClient.predict`."""
        return calls.read(await self._post(calls.predict("/predict", inputs, request_id, knobs)), PredictResponse)

    async def predict_array(
        self, inputs: Samples, *, request_id: str | None = None, **knobs: Unpack[Knobs]
    ) -> ArrayAnswer:
        """See `AnytimeClient.predict_array`."""
        request = calls.accepting_npy(calls.predict("/predict", inputs, request_id, knobs))
        return calls.read_array(await self._post(request))

    async def predict_stream(
        self, inputs: Samples, *, request_id: str | None = None, **knobs: Unpack[Knobs]
    ) -> AsyncGenerator[Progress | PredictResponse]:
        """See `AnytimeClient.predict_stream`."""
        request = calls.predict("/predict/stream", inputs, request_id, knobs)
        held = AsyncExitStack()
        try:
            response = await orderly(held.enter_async_context(self._http.stream("POST", **request)))
            if not response.is_success:
                await orderly(response.aread())
                calls.raise_answer(response)
            events, contents = calls.Events(), response.aiter_bytes()
            while (content := await orderly(anext(contents, None))) is not None:
                for event in events.feed(content):
                    yield event
        finally:
            await orderly(held.aclose())

    async def stream(
        self, chunks: Iterable[Samples] | AsyncIterable[Samples], **knobs: Unpack[StreamKnobs]
    ) -> AsyncGenerator[StreamEvent]:
        """See `AnytimeClient.stream`."""
        base_url, credentials = str(self._http.base_url), calls.credentials(self._http.headers)
        async with aclosing(stream_client.stream_async(base_url, credentials, self._ssl, chunks, knobs)) as events:
            async for event in events:
                yield event

    async def continue_(self, request_id: str, **budget: Unpack[Budget]) -> PredictResponse:
        """See `AnytimeClient.continue_`."""
        return calls.read(await self._post(calls.continue_(request_id, budget)), PredictResponse)

    async def feedback(self, request_id: str, labels: Labels) -> FeedbackResponse:
        """See `AnytimeClient.feedback`."""
        return calls.read(await self._post(calls.feedback(request_id, labels)), FeedbackResponse)

    async def load(self, name: str, version: int | None = None) -> ModelCard:
        """See `AnytimeClient.load`."""
        return calls.read(await self._post(calls.change(name, "load", version)), ModelCard)

    async def unload(self, name: str, version: int | None = None) -> list[ModelCard]:
        """See `AnytimeClient.unload`."""
        return calls.read(await self._post(calls.change(name, "unload", version)), ModelList).models

    async def models(self) -> list[ModelCard]:
        """See `AnytimeClient.models`."""
        return calls.read(await orderly(self._http.get("/models")), ModelList).models

    async def ready(self) -> bool:
        """See `AnytimeClient.ready`."""
        try:
            return (await orderly(self._http.get("/readyz", timeout=GRACE_S))).is_success
        except httpx.TransportError:
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _post(self, request: dict[str, Any]) -> httpx.Response:
        return await orderly(self._http.post(**request))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
