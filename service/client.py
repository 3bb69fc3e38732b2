"""Clients of the service, for threads and for asyncio, on httpx.

What goes over the wire is decided once, by the functions at the end; the two classes only send it.

    with AnytimeClient("http://127.0.0.1:8000") as client:
        answer = client.predict(samples, deadline_ms=20)
        print(answer.members_used, answer.predictions[0].index)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel

from service.schemas import FeedbackResponse, Label, ModelCard, ModelList, Output, PredictResponse

Samples = npt.NDArray[Any] | Sequence[Any]
Answer = TypeVar("Answer", bound=BaseModel)

GRACE_S = 5.0
"""How long past a request's deadline the client waits for the server before it gives up on the connection."""


class AnytimeError(Exception):
    """The server answered with a problem document.

    `code` is stable and for programs; `retry_after_s` is set when the same request may succeed later.
    """

    def __init__(self, status: int, code: str, detail: str, document: Mapping[str, Any]) -> None:
        super().__init__(f"{detail} ({code}, HTTP {status})")
        self.status = status
        self.code = code
        self.detail = detail
        self.document = document

    @property
    def retry_after_s(self) -> float | None:
        """Seconds after which the same request may succeed."""
        return self.document.get("retry_after_s")


class AnytimeClient:
    """Blocking client; one connection pool, safe to share between threads.

    Args:
        base_url: where the server is.
        http: an httpx client to use instead of a new one; for TLS, proxies, authentication, tests.
    """

    def __init__(self, base_url: str = "http://127.0.0.1:8000", *, http: httpx.Client | None = None) -> None:
        self._http = http or httpx.Client(base_url=base_url, timeout=None)

    def predict(
        self,
        inputs: Samples,
        *,
        deadline_ms: float | None = None,
        model: str | None = None,
        version: int | None = None,
        max_members: int | None = None,
        outputs: Sequence[Output] = (),
        request_id: str | None = None,
    ) -> PredictResponse:
        """The best answer by the deadline; see `PredictRequest` for the arguments.

        Raises:
            AnytimeError: the server answered with a problem document.
            httpx.TransportError: there was no answer.
        """
        request = _predict(inputs, deadline_ms, model, version, max_members, outputs, request_id)
        return _read(self._http.post(**request), PredictResponse)

    def feedback(self, request_id: str, labels: Sequence[Label]) -> FeedbackResponse:
        """Tell the server the true labels of an answered request."""
        return _read(self._http.post(**_feedback(request_id, labels)), FeedbackResponse)

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

    def __init__(self, base_url: str = "http://127.0.0.1:8000", *, http: httpx.AsyncClient | None = None) -> None:
        self._http = http or httpx.AsyncClient(base_url=base_url, timeout=None)

    async def predict(
        self,
        inputs: Samples,
        *,
        deadline_ms: float | None = None,
        model: str | None = None,
        version: int | None = None,
        max_members: int | None = None,
        outputs: Sequence[Output] = (),
        request_id: str | None = None,
    ) -> PredictResponse:
        """See `AnytimeClient.predict`."""
        request = _predict(inputs, deadline_ms, model, version, max_members, outputs, request_id)
        return _read(await self._http.post(**request), PredictResponse)

    async def feedback(self, request_id: str, labels: Sequence[Label]) -> FeedbackResponse:
        """See `AnytimeClient.feedback`."""
        return _read(await self._http.post(**_feedback(request_id, labels)), FeedbackResponse)

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


def _predict(
    inputs: Samples,
    deadline_ms: float | None,
    model: str | None,
    version: int | None,
    max_members: int | None,
    outputs: Sequence[Output],
    request_id: str | None,
) -> dict[str, Any]:
    fields = {
        "inputs": np.ascontiguousarray(inputs) if isinstance(inputs, np.ndarray) else inputs,
        "deadline_ms": deadline_ms,
        "model": model,
        "version": version,
        "max_members": max_members,
        "outputs": list(outputs),
    }
    request = _post("/predict", {name: value for name, value in fields.items() if value is not None})
    if request_id is not None:
        request["headers"]["x-request-id"] = request_id
    if deadline_ms is not None:
        request["timeout"] = deadline_ms / 1e3 + GRACE_S
    return request


def _feedback(request_id: str, labels: Sequence[Label]) -> dict[str, Any]:
    return _post("/feedback", {"request_id": request_id, "labels": list(labels)})


def _post(url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    content = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    return {"url": url, "content": content, "headers": {"content-type": "application/json"}}


def _read(response: httpx.Response, schema: type[Answer]) -> Answer:
    if response.is_success:
        return schema.model_validate_json(response.content)
    if response.headers.get("content-type") == "application/problem+json":
        document = response.json()
        raise AnytimeError(document["status"], document["code"], document["detail"], document)
    # Not this service: a proxy in between, for example.
    raise AnytimeError(response.status_code, "no_problem_document", response.reason_phrase, {})
