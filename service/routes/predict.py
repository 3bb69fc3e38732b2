"""POST /predict: decode, let the engine answer, encode."""

from __future__ import annotations

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from bundle import Manifest
from service import npy
from service.body import NPY, read_predict
from service.context import context_of
from service.engine.ticket import Published
from service.errors import InvalidField
from service.ingress import Visit, visit_of
from service.keeping import keep
from service.routes.answering import admit, answers, close, probabilities, published_of, run
from service.routes.documented import ANSWER, body_or_array, followed_up, or_array, problems
from service.schema import Output
from service.schemas import Knobs, PredictRequest, PredictResponse

router = APIRouter()


@router.post(
    "/predict",
    summary="The best answer that can be had by the deadline",
    response_model=PredictResponse,
    responses=problems(400, 401, 404, 408, 413, 422, 500, 503, 504) | {200: or_array()[200] | followed_up()[200]},
    openapi_extra=body_or_array(PredictRequest),
)
async def predict(request: Request) -> Response:
    """Run members until the deadline, and answer with the mean of those that were finished.

    The clock starts when the request's head arrives. Without `deadline_ms` all members are run.

    Samples come as JSON, or as an .npy body (`application/octet-stream`) with the other fields in the query. With
    `Accept: application/octet-stream` the answer is an .npy body too: the probabilities, or the logits if `outputs`
    names them, or the values of a regression, and the rest as JSON in the header Anytime-Answer.
    """
    context, visit = context_of(request), visit_of(request)
    wanted, inputs = await read_predict(request)
    as_array = _wanted_array(visit, wanted)
    ticket, deployment = admit(wanted, inputs, visit, context)
    # The ticket has them as an array.
    del inputs
    outcome = await run(request, ticket, deployment, context)
    published = published_of(outcome, ticket, visit, context)
    kept_ms = keep(ticket, deployment, outcome.stopped_by, wanted.keep_ms, context)
    head = close(outcome, ticket, deployment, wanted.deadline_ms, visit, context) | {"kept_ms": kept_ms}
    if as_array is not None:
        return encode_array(head, published, deployment.manifest, as_array)
    return encode(head, published, deployment.manifest, set(wanted.outputs))


def encode(head: dict[str, object], published: Published, manifest: Manifest, outputs: set[str]) -> Response:
    """The answer as JSON."""
    content = orjson.dumps(head | answers(published, manifest, outputs), option=orjson.OPT_SERIALIZE_NUMPY)
    return Whole(content, b"application/json")


def encode_array(head: dict[str, object], published: Published, manifest: Manifest, output: Output) -> Response:
    """The answer as .npy, its head as a header."""
    plain = output == "logits" or manifest.task == "regression"
    values = published.logits if plain else probabilities(published, manifest)
    return Whole(npy.encode(values), NPY, (ANSWER.encode(), orjson.dumps(head)))


class Whole(Response):
    """An answer of which everything is known: it has its headers as bytes, which others make of strings each time."""

    def __init__(self, content: bytes, media_type: bytes, *headers: tuple[bytes, bytes]) -> None:
        self.status_code, self.body, self.background = 200, content, None
        self.raw_headers = [(b"content-length", b"%d" % len(content)), (b"content-type", media_type), *headers]


def _wanted_array(visit: Visit, wanted: Knobs) -> Output | None:
    """Which array the client accepts as .npy; None if it wants JSON."""
    if NPY not in visit.headers.get(b"accept", b""):
        return None
    if len(set(wanted.outputs)) > 1:
        raise InvalidField(
            "Field `outputs`: an .npy answer holds one array: ask for probabilities or for logits.", field="outputs"
        )
    return wanted.outputs[0] if wanted.outputs else "probabilities"
