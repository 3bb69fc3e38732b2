"""What the routes that answer with a prefix share: admit a request, let the engine run it, make its answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import Request

from bundle import Manifest
from service.connection import hang_up
from service.context import Context
from service.deployments import Deployment
from service.engine.deadline import Deadline
from service.engine.gate import Outcome, QueueFull
from service.engine.ticket import Published, StoppedBy, Ticket
from service.errors import (
    HungUp,
    InvalidDeadline,
    InvalidField,
    MemberFailed,
    NoPrefixInTime,
    Overloaded,
    ShuttingDown,
    WarmingUp,
)
from service.ingress import Visit
from service.keeping import check_keep
from service.knobs import terms
from service.ledger import Answered
from service.schema import Output
from service.schemas import Knobs
from service.tensors import to_tensor


def admit(wanted: Knobs, inputs: object, visit: Visit, context: Context) -> tuple[Ticket, Deployment]:
    """The ticket of a request that is not yet in the queue, and the deployment that it asks.

    Raises:
        Problem: the request cannot be what it is, or the service is not open.
    """
    deadline = deadline_of(wanted.deadline_ms, visit, context)
    check_keep(wanted.keep_ms, context)
    check_open(context)
    deployment = context.deployments.find(wanted.model, wanted.version)
    visit.model = deployment.key
    check_outputs(wanted.outputs, deployment)
    agreed = terms(wanted, deployment.manifest)
    ticket = Ticket(
        request_id=visit.request_id,
        model=deployment.key,
        inputs=to_tensor(inputs, deployment.manifest.input, context.settings.max_rows),
        deadline=deadline,
        profile=deployment.profile,
        members_total=len(deployment.manifest.members),
        member_limit=agreed.member_limit,
        member_minimum=agreed.member_minimum,
        limited_by=agreed.limited_by,
        exit=agreed.exit,
        priority=wanted.priority,
        task=deployment.manifest.task,
        keep=wanted.keep_ms is not None,
    )
    return ticket, deployment


def deadline_of(deadline_ms: float | None, visit: Visit, context: Context) -> Deadline:
    """When the answer is due; noted in the visit."""
    check_deadline(deadline_ms, context)
    budget_s = None if deadline_ms is None else deadline_ms / 1e3
    reserve_s = context.reserve.seconds(visit.arrived, budget_s or math.inf, context.gate.late_s())
    deadline = Deadline.after(visit.arrived, budget_s, reserve_s, context.reserve.least_s(visit.arrived))
    visit.deadline = None if deadline_ms is None else deadline
    return deadline


def check_deadline(deadline_ms: float | None, context: Context) -> None:
    """Refuse a deadline that is none, or a mistake in the unit."""
    longest = context.settings.max_deadline_ms
    if deadline_ms is not None and not 0 < deadline_ms <= longest:
        raise InvalidDeadline(
            f"`deadline_ms` is {deadline_ms:g}: it must be above 0 and at most {longest:g}; "
            "leave it out to run all members.",
            max_deadline_ms=longest,
        )


def check_open(context: Context) -> None:
    """Refuse requests that nobody would answer."""
    if context.draining or not context.worker.alive:
        raise ShuttingDown("The service is stopping: send the request to another instance.", 1)
    if not context.ready:
        raise WarmingUp("The service is measuring its members: send the request again in a moment.", 1)


async def run(request: Request, ticket: Ticket, deployment: Deployment, context: Context) -> Outcome:
    """Let the engine run a ticket until its deadline, its deployment kept on the device.

    Raises:
        Overloaded: the queue is full.
        HungUp: the client went away.
    """
    with context.repository.lease(deployment):
        try:
            outcome = await context.gate.answer(ticket, context.worker, hang_up(request), context.metrics)
        except QueueFull as full:
            raise overloaded(full) from full
    if outcome.stopped_by is StoppedBy.ABANDONED:
        raise HungUp("The client has hung up.")
    return outcome


def overloaded(full: QueueFull) -> Overloaded:
    """The answer to a request that found no room."""
    return Overloaded(str(full), full.retry_after_s)


def published_of(outcome: Outcome, ticket: Ticket, visit: Visit, context: Context) -> Published:
    """The prefix of a decided request.

    Raises:
        Problem: there is none; one of NoPrefixInTime, MemberFailed, ShuttingDown.
    """
    visit.decided = outcome.decided
    if outcome.published is None or outcome.published.members < ticket.member_minimum:
        raise _no_prefix(outcome.stopped_by, ticket, context)
    return outcome.published


def close(
    outcome: Outcome, ticket: Ticket, deployment: Deployment, deadline_ms: float | None, visit: Visit, context: Context
) -> dict[str, object]:
    """Count a decided request, remember it for feedback, and give the head of its answer."""
    published = published_of(outcome, ticket, visit, context)
    # The worker may be running a further member at this moment: count only what is in the answer.
    used = published.members
    classes, values = tuple(ticket.classes_by_prefix[:used]), tuple(ticket.values_by_prefix[:used])
    context.metrics.predicted(ticket, outcome.stopped_by, used, classes)
    rows = published.members_by_row
    answered = Answered(deployment, classes, rows, values, ticket.comparable, ticket.labelled)
    context.ledger.remember(visit.request_id, answered)
    return {
        "model": deployment.manifest.name,
        "version": deployment.manifest.version,
        "request_id": visit.request_id,
        "members_used": used,
        "members_total": ticket.members_total,
        "stopped_by": outcome.stopped_by,
        "deadline_ms": deadline_ms,
        "elapsed_ms": round((context.clock.now() - visit.arrived) * 1e3, 3),
        **expected(published, deployment.manifest),
        "kept_ms": None,
    }


def expected(published: Published, manifest: Manifest) -> dict[str, object]:
    """How good a prefix is on the held-out split, in the measure of its task; mean over rows of different ones."""
    used: list[int] = published.members_by_row.tolist()
    if manifest.task == "regression" or len(set(used)) == 1:
        prefix = manifest.prefixes[published.members - 1]
        return {"expected_accuracy": prefix.accuracy, "expected_rmse": prefix.rmse}
    return {
        "expected_accuracy": fmean(manifest.prefixes[members - 1].quality for members in used),
        "expected_rmse": None,
    }


def check_outputs(outputs: Sequence[Output], deployment: Deployment) -> None:
    """Refuse outputs that a regression does not have."""
    if outputs and deployment.manifest.task == "regression":
        raise InvalidField("Field `outputs`: a regression has only its values; leave it out.", field="outputs")


def answers(published: Published, manifest: Manifest, outputs: set[str]) -> dict[str, object]:
    """The numbers of an answer: `values` of a regression, `predictions` of a classifier."""
    if manifest.task == "regression":
        return {"values": published.logits}
    return {"predictions": predictions(published, manifest, outputs)}


def predictions(published: Published, manifest: Manifest, outputs: set[str]) -> list[dict[str, Any]]:
    """One `Prediction` per row, numpy rows inside."""
    weights, totals = _softmax(published, manifest)
    # The largest weight of a row, its winner's, is 1.
    winners, confidences = published.logits.argmax(axis=1).tolist(), (1 / totals).tolist()
    rows: list[dict[str, Any]] = [
        {"class": manifest.classes[index], "index": index, "confidence": confidence}
        for index, confidence in zip(winners, confidences, strict=True)
    ]
    members: list[int] = published.members_by_row.tolist()
    if len(set(members)) > 1:
        for prediction, used in zip(rows, members, strict=True):
            prediction["members_used"] = used
    if "probabilities" in outputs:
        for prediction, row in zip(rows, weights / totals[:, None], strict=True):
            prediction["probabilities"] = row
    if "logits" in outputs:
        for prediction, row in zip(rows, published.logits, strict=True):
            prediction["logits"] = row
    return rows


def probabilities(published: Published, manifest: Manifest) -> npt.NDArray[np.float32]:
    """Calibrated: softmax of each row's logits over the temperature of its prefix, (rows, classes)."""
    weights, totals = _softmax(published, manifest)
    return weights / totals[:, None]


def _softmax(published: Published, manifest: Manifest) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Calibrated probabilities before they are scaled, 1 for each row's winner, (rows, classes), and their sums."""
    logits, used = published.logits, published.members_by_row.tolist()
    temperatures = [manifest.prefixes[members - 1].temperature for members in used]
    scale = np.array(temperatures, np.float32)[:, None] if len(set(used)) > 1 else np.float32(temperatures[0])
    # The reductions themselves: the methods of an array go through several more calls.
    above = logits - np.maximum.reduce(logits, axis=1, keepdims=True)
    weights = np.exp(above / scale)
    return weights, np.add.reduce(weights, axis=1)


def _no_prefix(stopped_by: StoppedBy, ticket: Ticket, context: Context) -> NoPrefixInTime | MemberFailed | ShuttingDown:
    if stopped_by is StoppedBy.MEMBER_FAILED:
        return MemberFailed("A member that was needed failed on these inputs; the service's log tells why.")
    if stopped_by is StoppedBy.SHUTDOWN:
        return ShuttingDown("The service is stopping: send the request to another instance.", 1)
    needed, named = ticket.member_minimum, "the first takes"
    if needed > 1:
        named = f"the {needed} that `min_members` asks for take"
    first_s = sum(context.costs.typical(ticket.model, member, ticket.rows) for member in range(needed))
    needed_s = context.reserve.budget_for(first_s, context.clock.now(), context.gate.late_s())
    first_ms, needed_ms = first_s * 1e3, math.ceil(needed_s * 1e4) / 10
    return NoPrefixInTime(
        f"{'No member was' if needed == 1 else 'Not enough members were'} finished in time: "
        f"{named} about {first_ms:.3g} ms on {ticket.rows} rows; "
        f"allow at least {needed_ms:g} ms, more under load.",
        first_member_ms=round(first_ms, 3),
    )
