"""POST /predict: decode, let the engine answer, encode."""

from __future__ import annotations

import math
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from service.body import read_json
from service.context import Context, context_of
from service.deployments import Deployment
from service.engine.deadline import Deadline
from service.engine.gate import QueueFull
from service.engine.ticket import Published, StoppedBy, Ticket
from service.errors import InvalidDeadline, MemberFailed, NoPrefixInTime, Overloaded, ShuttingDown, WarmingUp
from service.ingress import Visit, visit_of
from service.knobs import terms
from service.ledger import Answered
from service.routes.documented import body_of, problems
from service.schemas import PredictRequest, PredictResponse
from service.tensors import to_tensor

router = APIRouter()


@router.post(
    "/predict",
    summary="The best answer that can be had by the deadline",
    response_model=PredictResponse,
    responses=problems(400, 404, 413, 422, 500, 503, 504),
    openapi_extra=body_of(PredictRequest),
)
async def predict(request: Request) -> Response:
    """Run members until the deadline, and answer with the mean logits of those that were finished.

    The clock starts when the request's head arrives. Without `deadline_ms` all members are run.
    """
    context, visit = context_of(request), visit_of(request)
    wanted = await read_json(request, PredictRequest)
    deadline = _deadline(wanted.deadline_ms, visit, context)
    _check_open(context)
    deployment = context.deployments.find(wanted.model, wanted.version)
    visit.model = deployment.key
    ticket = _ticket(wanted, deployment, deadline, visit, context)
    try:
        outcome = await context.gate.answer(ticket, context.worker, _hang_up(request))
    except QueueFull as full:
        raise Overloaded(str(full), full.retry_after_s) from full
    visit.decided = outcome.decided
    if outcome.published is None or outcome.published.members < ticket.member_minimum:
        raise _no_prefix(outcome.stopped_by, ticket, context)
    # The worker may be running a further member at this moment: count only what is in the answer.
    classes = tuple(ticket.classes_by_prefix[: outcome.published.members])
    context.metrics.predicted(ticket, outcome.stopped_by, classes)
    members_by_row = outcome.published.members_by_row
    context.ledger.remember(visit.request_id, Answered(deployment, classes, members_by_row))
    head = {
        "model": deployment.manifest.name,
        "version": deployment.manifest.version,
        "request_id": visit.request_id,
        "members_used": outcome.published.members,
        "members_total": ticket.members_total,
        "stopped_by": outcome.stopped_by,
        "deadline_ms": wanted.deadline_ms,
        "elapsed_ms": round((context.clock.now() - visit.arrived) * 1e3, 3),
        "expected_accuracy": _expected_accuracy(outcome.published, deployment.profile.accuracy),
    }
    predictions = _predictions(outcome.published, deployment.manifest.classes, set(wanted.outputs))
    body = orjson.dumps({**head, "predictions": predictions}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, media_type="application/json")


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
    agreed = terms(wanted, deployment.manifest)
    return Ticket(
        request_id=visit.request_id,
        model=deployment.key,
        inputs=to_tensor(wanted.inputs, deployment.manifest.input, context.settings.max_rows),
        deadline=deadline,
        profile=deployment.profile,
        members_total=len(deployment.manifest.members),
        member_limit=agreed.member_limit,
        member_minimum=agreed.member_minimum,
        limited_by=agreed.limited_by,
        exit=agreed.exit,
        priority=wanted.priority,
    )


async def _hang_up(request: Request) -> None:
    """Return when the client has gone; the body has been read, so nothing else can come."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _no_prefix(stopped_by: StoppedBy, ticket: Ticket, context: Context) -> NoPrefixInTime | MemberFailed | ShuttingDown:
    if stopped_by is StoppedBy.MEMBER_FAILED:
        return MemberFailed("A member that was needed failed on these inputs; the service's log tells why.")
    if stopped_by is StoppedBy.SHUTDOWN:
        return ShuttingDown("The service is stopping: send the request to another instance.", 1)
    needed, named = ticket.member_minimum, "the first takes"
    if needed > 1:
        named = f"the {needed} that `min_members` asks for take"
    first_ms = sum(context.costs.typical(ticket.model, member, ticket.rows) for member in range(needed)) * 1e3
    reserve_ms = context.reserve.seconds(context.clock.now()) * 1e3
    needed_ms = math.ceil((first_ms + reserve_ms) * 10) / 10
    return NoPrefixInTime(
        f"{'No member was' if needed == 1 else 'Not enough members were'} finished in time: "
        f"{named} about {first_ms:.3g} ms on {ticket.rows} rows; "
        f"allow at least {needed_ms:g} ms, more under load.",
        first_member_ms=round(first_ms, 3),
    )


def _expected_accuracy(published: Published, accuracy: tuple[float, ...]) -> float:
    """Of the prefix; mean over the rows where they left with different ones."""
    used_by_row: list[int] = published.members_by_row.tolist()
    used = set(used_by_row)
    if len(used) == 1:
        return accuracy[used.pop() - 1]
    return fmean([accuracy[members - 1] for members in used_by_row])


def _predictions(published: Published, classes: tuple[str, ...], outputs: set[str]) -> list[dict[str, Any]]:
    logits = published.logits
    probabilities = softmax(logits)
    winners = logits.argmax(axis=1)
    confidences = probabilities[np.arange(len(winners)), winners]
    predictions: list[dict[str, Any]] = [
        {"class": classes[index], "index": index, "confidence": confidence}
        for index, confidence in zip(winners.tolist(), confidences.tolist(), strict=True)
    ]
    members = published.members_by_row.tolist()
    if len(set(members)) > 1:
        for prediction, used in zip(predictions, members, strict=True):
            prediction["members_used"] = used
    for name, values in (("probabilities", probabilities), ("logits", logits)):
        if name in outputs:
            for prediction, row in zip(predictions, values, strict=True):
                prediction[name] = row
    return predictions


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Probabilities over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: npt.NDArray[np.float32] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return result
