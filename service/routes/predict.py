"""POST /predict: decode, let the engine answer, encode."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from service import npy
from service.body import read_predict
from service.context import Context, context_of
from service.deployments import Deployment
from service.engine.deadline import Deadline
from service.engine.gate import Outcome, QueueFull
from service.engine.ticket import Published, StoppedBy, Ticket
from service.errors import (
    InvalidDeadline,
    InvalidField,
    MemberFailed,
    NoPrefixInTime,
    Overloaded,
    ShuttingDown,
    WarmingUp,
)
from service.ingress import Visit, visit_of
from service.ledger import Answered
from service.routes.documented import ANSWER, body_or_array, or_array, problems
from service.schemas import Output, PredictRequest, PredictResponse
from service.tensors import to_tensor

router = APIRouter()

CLIENT_GONE = 499
"""The status that nobody reads: for the metrics, as other servers count it."""


@router.post(
    "/predict",
    summary="The best answer that can be had by the deadline",
    response_model=PredictResponse,
    responses=problems(400, 401, 404, 408, 413, 422, 500, 503, 504) | or_array(),
    openapi_extra=body_or_array(PredictRequest),
)
async def predict(request: Request) -> Response:
    """Run members until the deadline, and answer with the mean logits of those that were finished.

    The clock starts when the request's head arrives. Without `deadline_ms` all members are run.

    Samples come as JSON, or as an .npy body (`application/octet-stream`) with the other fields in the query. With
    `Accept: application/octet-stream` the answer is an .npy body too: the probabilities, or the logits if `outputs`
    names them, and the rest as JSON in the header Anytime-Answer.
    """
    context, visit = context_of(request), visit_of(request)
    wanted = await read_predict(request)
    as_array = _wanted_array(request, wanted)
    ticket, deployment = admit(wanted, visit, context)
    try:
        outcome = await context.gate.answer(ticket, context.worker, hang_up(request))
    except QueueFull as full:
        raise overloaded(full) from full
    if outcome.stopped_by is StoppedBy.ABANDONED:
        return Response(status_code=CLIENT_GONE)
    head = close(outcome, ticket, deployment, wanted, visit, context)
    published = outcome.published
    assert published is not None, "close has raised if there is none"
    if as_array is not None:
        values = published.logits if as_array == "logits" else softmax(published.logits)
        return Response(npy.encode(values), media_type=npy.MEDIA_TYPE, headers={ANSWER: orjson.dumps(head).decode()})
    return Response(
        orjson.dumps(
            {**head, "predictions": predictions(published, deployment.manifest.classes, set(wanted.outputs))},
            option=orjson.OPT_SERIALIZE_NUMPY,
        ),
        media_type="application/json",
    )


def admit(wanted: PredictRequest, visit: Visit, context: Context) -> tuple[Ticket, Deployment]:
    """The ticket of a request, not yet in the queue, and what it asks.

    Raises:
        Problem: the request cannot be what it is, or the service is not open.
    """
    deadline = _deadline(wanted.deadline_ms, visit, context)
    _check_open(context)
    deployment = context.deployments.find(wanted.model, wanted.version)
    visit.model = deployment.key
    return _ticket(wanted, deployment, deadline, visit, context), deployment


def close(
    outcome: Outcome, ticket: Ticket, deployment: Deployment, wanted: PredictRequest, visit: Visit, context: Context
) -> dict[str, object]:
    """Count a decided request, remember it for feedback, and give the head of its answer.

    Raises:
        Problem: there is no finished prefix.
    """
    visit.decided = outcome.decided
    if outcome.published is None:
        raise _no_prefix(outcome.stopped_by, ticket, context)
    # The worker may be running a further member at this moment: count only what is in the answer.
    classes = tuple(ticket.classes_by_prefix[: outcome.published.members])
    context.metrics.predicted(ticket, outcome.stopped_by, classes)
    context.ledger.remember(visit.request_id, Answered(deployment, classes))
    return {
        "model": deployment.manifest.name,
        "version": deployment.manifest.version,
        "request_id": visit.request_id,
        "members_used": outcome.published.members,
        "members_total": ticket.members_total,
        "stopped_by": outcome.stopped_by,
        "deadline_ms": wanted.deadline_ms,
        "elapsed_ms": round((context.clock.now() - visit.arrived) * 1e3, 3),
        "expected_accuracy": deployment.manifest.prefixes[outcome.published.members - 1].accuracy,
    }


def overloaded(full: QueueFull) -> Overloaded:
    """The answer to a request that found the queue full."""
    return Overloaded("The queue is full: send the request again later.", full.retry_after_s)


def _wanted_array(request: Request, wanted: PredictRequest) -> Output | None:
    """Which array the client accepts as .npy; None if it wants JSON."""
    if npy.MEDIA_TYPE not in request.headers.get("accept", ""):
        return None
    if len(set(wanted.outputs)) > 1:
        raise InvalidField(
            "Field `outputs`: an .npy answer holds one array: ask for probabilities or for logits.", field="outputs"
        )
    return wanted.outputs[0] if wanted.outputs else "probabilities"


def _deadline(deadline_ms: float | None, visit: Visit, context: Context) -> Deadline:
    settings = context.settings
    if deadline_ms is not None and not 0 < deadline_ms <= settings.max_deadline_ms:
        raise InvalidDeadline(
            f"`deadline_ms` is {deadline_ms:g}: it must be above 0 and at most {settings.max_deadline_ms:g}; "
            "leave it out to run all members.",
            max_deadline_ms=settings.max_deadline_ms,
        )
    budget_s = None if deadline_ms is None else deadline_ms / 1e3
    deadline = Deadline.after(visit.arrived, budget_s, context.reserve.seconds(visit.arrived))
    visit.deadline = None if deadline_ms is None else deadline
    return deadline


def _check_open(context: Context) -> None:
    if context.draining or not context.worker.alive:
        raise ShuttingDown("The service is stopping: send the request to another instance.", 1)
    if not context.ready:
        raise WarmingUp("The service is measuring its members: send the request again in a moment.", 1)


def _ticket(
    wanted: PredictRequest, deployment: Deployment, deadline: Deadline, visit: Visit, context: Context
) -> Ticket:
    members = len(deployment.manifest.members)
    return Ticket(
        request_id=visit.request_id,
        model=deployment.key,
        inputs=to_tensor(wanted.inputs, deployment.manifest.input, context.settings.max_rows),
        deadline=deadline,
        members_total=members,
        member_limit=min(wanted.max_members or members, members),
    )


async def hang_up(request: Request) -> None:
    """Return when the client has gone; the body has been read, so nothing else can come."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _no_prefix(stopped_by: StoppedBy, ticket: Ticket, context: Context) -> NoPrefixInTime | MemberFailed | ShuttingDown:
    if stopped_by is StoppedBy.MEMBER_FAILED:
        return MemberFailed("The first member failed on these inputs; the service's log tells why.")
    if stopped_by is StoppedBy.SHUTDOWN:
        return ShuttingDown("The service is stopping: send the request to another instance.", 1)
    first_ms = context.costs.typical(ticket.model, 0, ticket.rows) * 1e3
    reserve_ms = context.reserve.seconds(context.clock.now()) * 1e3
    needed_ms = math.ceil((first_ms + reserve_ms) * 10) / 10
    return NoPrefixInTime(
        f"No member was finished in time: the first takes about {first_ms:.3g} ms on {ticket.rows} rows; "
        f"allow at least {needed_ms:g} ms, more under load.",
        first_member_ms=round(first_ms, 3),
    )


def predictions(published: Published, classes: tuple[str, ...], outputs: set[str]) -> list[dict[str, Any]]:
    """One `Prediction` per row, numpy rows inside."""
    logits = published.logits
    probabilities = softmax(logits)
    winners = logits.argmax(axis=1)
    confidences = probabilities[np.arange(len(winners)), winners]
    rows: list[dict[str, Any]] = [
        {"class": classes[index], "index": index, "confidence": confidence}
        for index, confidence in zip(winners.tolist(), confidences.tolist(), strict=True)
    ]
    for name, values in (("probabilities", probabilities), ("logits", logits)):
        if name in outputs:
            for prediction, row in zip(rows, values, strict=True):
                prediction[name] = row
    return rows


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Probabilities over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: npt.NDArray[np.float32] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return result
