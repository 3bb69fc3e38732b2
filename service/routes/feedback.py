"""POST /feedback: true labels for an answered request, counted for every prefix it ran."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request

from service.body import read_json
from service.context import Context, context_of
from service.errors import InvalidField, UnknownRequest
from service.ledger import Answered, Classes
from service.routes.documented import body_of, problems
from service.schemas import FeedbackRequest, FeedbackResponse, Label

router = APIRouter()


@router.post(
    "/feedback",
    summary="True labels for an answered request",
    responses=problems(400, 401, 404, 408, 413, 422),
    openapi_extra=body_of(FeedbackRequest),
)
async def feedback(request: Request) -> FeedbackResponse:
    """Count how each prefix of that request did; shown in /metrics by number of members, as accuracy or squared error.

    Each answer can be labelled once, while it is among the latest; one that was continued since, for its new prefixes.
    """
    context = context_of(request)
    given = await read_json(request, FeedbackRequest)
    answered = context.ledger.find(given.request_id)
    if answered is None:
        raise UnknownRequest(
            f"No answer {given.request_id!r} is waiting for labels: it was never given, is labelled already, "
            f"or is older than the latest {context.settings.feedback_requests}."
        )
    count = _count_values if answered.deployment.manifest.task == "regression" else _count_classes
    response = count(given, answered, context)
    context.ledger.forget(given.request_id)
    return response


def _count_classes(given: FeedbackRequest, answered: Answered, context: Context) -> FeedbackResponse:
    labels = _to_indices(given.labels, answered.deployment.manifest.classes)
    samples = _check_number(given.labels, answered.members_by_row)
    correct = 0
    for members, classes in enumerate(answered.classes_by_prefix, start=1):
        if classes is None:
            continue
        correct = int(np.count_nonzero(classes == labels))
        # Behind the first early exit only hard rows are left, which say nothing of how good a prefix is in general.
        if answered.labelled.prefixes < members <= (answered.comparable or members):
            context.metrics.quality.labelled(answered.deployment.key, members, correct, samples)
    return FeedbackResponse(
        request_id=given.request_id, members_used=len(answered.classes_by_prefix), correct=correct, samples=samples
    )


def _count_values(given: FeedbackRequest, answered: Answered, context: Context) -> FeedbackResponse:
    labels = _to_values(given.labels, answered.deployment.manifest.classes)
    samples, used = _check_number(given.labels, answered.members_by_row), len(answered.values_by_prefix)
    error = 0.0
    for members, values in enumerate(answered.values_by_prefix, start=1):
        if values is not None:
            error = float(((values - labels) ** 2).mean(axis=1).sum())
        if values is not None and members > answered.labelled.prefixes:
            context.metrics.quality.labelled_values(answered.deployment.key, members, error, samples)
    rmse = math.sqrt(error / samples)
    return FeedbackResponse(request_id=given.request_id, members_used=used, rmse=rmse, samples=samples)


def _check_number(labels: Sequence[Label], answer: Classes) -> int:
    """The number of samples, if there are as many labels."""
    if len(labels) != len(answer):
        raise InvalidField(f"Field `labels`: {len(labels)} labels for {len(answer)} samples.", field="labels")
    return len(answer)


def _to_values(labels: Sequence[Label], outputs: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """Numbers, or lists of one for each output, as (samples, outputs)."""
    rows = []
    for label in labels:
        row = label if isinstance(label, list) else [label]
        if len(row) != len(outputs) or isinstance(label, str):
            wanted = "a number" if len(outputs) == 1 else f"a list of {len(outputs)} numbers, one for each output"
            raise InvalidField(
                f"Field `labels`: {label!r} is not {wanted}, which a label of this regression must be.", field="labels"
            )
        rows.append(row)
    return np.array(rows, np.float64)


def _to_indices(labels: Sequence[Label], classes: tuple[str, ...]) -> Classes:
    """Class names and indices as indices."""
    positions = {name: index for index, name in enumerate(classes)}
    indices = []
    for label in labels:
        index = positions.get(label, -1) if isinstance(label, str) else label
        if not isinstance(index, int) or not 0 <= index < len(classes):
            raise InvalidField(
                f"Field `labels`: {label!r} is neither one of the {len(classes)} classes nor the index of one.",
                field="labels",
            )
        indices.append(index)
    return np.asarray(indices, np.intp)
