"""POST /feedback: true labels for an answered request, counted for every prefix it ran."""

from __future__ import annotations

import numpy as np
from fastapi import APIRouter, Request

from service.body import read_json
from service.context import context_of
from service.errors import InvalidField, UnknownRequest
from service.ledger import Classes
from service.routes.documented import body_of, problems
from service.schemas import FeedbackRequest, FeedbackResponse

router = APIRouter()


@router.post(
    "/feedback",
    summary="True labels for an answered request",
    responses=problems(400, 401, 404, 408, 413, 422),
    openapi_extra=body_of(FeedbackRequest),
)
async def feedback(request: Request) -> FeedbackResponse:
    """Count how each prefix of that request did; shown as accuracy by number of members in /metrics.

    Each answer can be labelled once, while it is among the latest.
    """
    context = context_of(request)
    given = await read_json(request, FeedbackRequest)
    answered = context.ledger.find(given.request_id)
    if answered is None:
        raise UnknownRequest(
            f"No answer {given.request_id!r} is waiting for labels: it was never given, is labelled already, "
            f"or is older than the latest {context.settings.feedback_requests}."
        )
    labels = _to_indices(given.labels, answered.deployment.manifest.classes)
    samples = len(answered.classes_by_prefix[-1])
    if len(labels) != samples:
        raise InvalidField(f"Field `labels`: {len(labels)} labels for {samples} samples.", field="labels")
    context.ledger.forget(given.request_id)
    correct = [int(np.count_nonzero(classes == labels)) for classes in answered.classes_by_prefix]
    for members, right in enumerate(correct, start=1):
        context.metrics.labelled(answered.deployment.key, members, right, samples)
    return FeedbackResponse(
        request_id=given.request_id, members_used=len(correct), correct=correct[-1], samples=samples
    )


def _to_indices(labels: list[int | str], classes: tuple[str, ...]) -> Classes:
    """Class names and indices as indices."""
    positions = {name: index for index, name in enumerate(classes)}
    indices = []
    for label in labels:
        index = positions.get(label, -1) if isinstance(label, str) else label
        if not 0 <= index < len(classes):
            raise InvalidField(
                f"Field `labels`: {label!r} is neither one of the {len(classes)} classes nor the index of one.",
                field="labels",
            )
        indices.append(index)
    return np.asarray(indices, np.intp)
