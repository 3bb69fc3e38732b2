"""What the clients send and read, decided once for threads and for asyncio: no connection in here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn, TypedDict, TypeVar
from urllib.parse import quote, urlencode

import httpx
import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel

from service import npy
from service.anytime_error import raise_problem
from service.schema import Output
from service.schemas import AnswerHead, Label, PredictResponse, Progress

Samples = npt.NDArray[Any] | Sequence[Any]
Labels = npt.NDArray[Any] | Sequence[Label]
Answer = TypeVar("Answer", bound=BaseModel)

GRACE_S = 5.0
"""How long past a request's deadline the client waits for the server before it gives up on the connection."""

PATIENT = httpx.Timeout(None, connect=GRACE_S)
"""For what has no deadline: however long the answer takes, the server must be there."""


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
    min_members: int | None
    target_accuracy: float | None
    exit_confidence: float | None
    exit_risk: float | None
    priority: int


@dataclass(frozen=True, slots=True)
class ArrayAnswer:
    """An answer in binary form."""

    head: AnswerHead
    values: npt.NDArray[np.float32]
    """Probabilities or logits, (rows, classes); of a regression its values (rows, outputs)."""


class Events:
    """Server-sent events out of bytes, as this service sends them: one `event` and one `data` line each."""

    KINDS: ClassVar[dict[bytes, type[Progress] | type[PredictResponse]]] = {
        b"prefix": Progress,
        b"answer": PredictResponse,
    }

    def __init__(self) -> None:
        self._kind = b""
        self._rest = b""

    def feed(self, content: bytes) -> list[Progress | PredictResponse]:
        """The events that these bytes complete."""
        # Not by `splitlines`: JSON leaves other separators of lines in texts as they are.
        *lines, self._rest = (self._rest + content).split(b"\n")
        found: list[Progress | PredictResponse] = []
        for line in lines:
            name, _, value = line.partition(b": ")
            if name == b"event":
                self._kind = value.strip()
            elif name == b"data":
                found.append(self.KINDS[self._kind].model_validate_json(value))
        return found


def authorization(api_key: str | None) -> dict[str, str]:
    """The header that carries a key."""
    return {} if api_key is None else {"authorization": f"Bearer {api_key}"}


def credentials(headers: httpx.Headers) -> dict[str, str]:
    """What of a client's headers says who it is: all that a WebSocket takes over."""
    return {name: value for name, value in headers.items() if name in {"authorization", "x-api-key"}}


def predict(url: str, inputs: Samples, request_id: str | None, knobs: Knobs) -> dict[str, Any]:
    """A request for a prediction: an array as .npy with its knobs in the query, anything else as JSON."""
    given = _given(knobs)
    if isinstance(inputs, np.ndarray):
        request = _post_array(url, inputs, given)
    else:
        request = _post(url, {"inputs": inputs, **given})
    if request_id is not None:
        request["headers"]["x-request-id"] = request_id
    return request | _timeout(knobs.get("deadline_ms"))


def continue_(request_id: str, budget: Budget) -> dict[str, Any]:
    """A request to go on from an answer."""
    request = _post(f"/predict/{quote(request_id, safe='')}/continue", _given(budget))
    return request | _timeout(budget.get("deadline_ms"))


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked for.

    Raises:
        ValueError: a number is not finite: JSON has none of these, and null would ask for nothing.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    for name, value in given.items():
        if isinstance(value, float | np.floating) and not np.isfinite(value):
            raise ValueError(f"`{name}` is {value}, but must be finite: leave it out to ask for nothing.")
    return given


def _timeout(deadline_ms: float | None) -> dict[str, float]:
    return {} if deadline_ms is None else {"timeout": deadline_ms / 1e3 + GRACE_S}


def feedback(request_id: str, labels: Labels) -> dict[str, Any]:
    """A request that labels an answer."""
    return _post("/feedback", {"request_id": request_id, "labels": list(labels)})


def change(name: str, verb: str, version: int | None) -> dict[str, Any]:
    """To load or unload a bundle, or a version of it."""
    return {"url": f"/models/{quote(name, safe='')}/{verb}", "params": {} if version is None else {"version": version}}


def _post(url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    return {"url": url, "content": to_json(body), "headers": {"content-type": "application/json"}}


def to_json(body: Mapping[str, Any]) -> bytes:
    """JSON of what may hold arrays and numbers of numpy, however they lie in memory."""
    # Not by orjson's own option, which takes only arrays in C order and the machine's byte order.
    return orjson.dumps(body, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError


def _post_array(url: str, inputs: npt.NDArray[Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    query = query_of(fields)
    return {
        "url": f"{url}?{query}" if query else url,
        "content": npy.encode(inputs),
        "headers": {"content-type": npy.MEDIA_TYPE},
    }


def query_of(fields: Mapping[str, Any]) -> str:
    """What is asked for as a query string; several `outputs` are separated by commas."""
    joined = {name: ",".join(value) if name == "outputs" else value for name, value in fields.items()}
    # An empty list is nothing to ask for; in a query it would be a list of one empty text.
    return urlencode({name: value for name, value in joined.items() if name != "outputs" or value})


def accepting_npy(request: dict[str, Any]) -> dict[str, Any]:
    """The same request, but for an answer in .npy form."""
    request["headers"]["accept"] = npy.MEDIA_TYPE
    return request


def read(response: httpx.Response, schema: type[Answer]) -> Answer:
    """The object in an answer, or the problem raised."""
    if not response.is_success:
        raise_answer(response)
    return schema.model_validate_json(response.content)


def read_array(response: httpx.Response) -> ArrayAnswer:
    """The array in an answer, or the problem raised."""
    if not response.is_success:
        raise_answer(response)
    head = AnswerHead.model_validate_json(response.headers["anytime-answer"])
    return ArrayAnswer(head, npy.decode(response.content))


def raise_answer(response: httpx.Response) -> NoReturn:
    """Raise the problem that an answer holds."""
    raise_problem(response.status_code, response.reason_phrase, response.headers.get("content-type"), response.content)
