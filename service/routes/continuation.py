"""POST /predict/{request_id}/continue: go on where an answered request stopped."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.body import read_json
from service.context import context_of
from service.engine.ticket import StoppedBy
from service.ingress import visit_of
from service.keeping import check_keep, keep_on
from service.routes.answering import check_open, close, deadline_of, published_of, run
from service.routes.documented import body_of, followed_up, problems
from service.routes.predict import encode
from service.schemas import ContinueRequest, PredictResponse

router = APIRouter()


@router.post(
    "/predict/{request_id}/continue",
    summary="A better answer to a request that was kept",
    response_model=PredictResponse,
    responses=problems(400, 401, 404, 408, 409, 410, 413, 422, 500, 503) | followed_up(),
    openapi_extra=body_of(ContinueRequest),
)
async def continue_(request_id: str, request: Request) -> Response:
    """Run the members that an answered request did not get to, until a new deadline.

    Nothing is computed twice: the answer is the one that a longer deadline would have given in the first place, and
    never worse than the last one. The state goes on being kept if this request asks for it too; a request that is
    refused or hung up changes nothing.
    """
    context, visit = context_of(request), visit_of(request)
    wanted = await read_json(request, ContinueRequest)
    deadline = deadline_of(wanted.deadline_ms, visit, context)
    check_keep(wanted.keep_ms, context)
    check_open(context)
    kept = context.kept.take(request_id, context.clock.now())
    visit.request_id = request_id
    members = kept.ticket.members_total
    limit = min(wanted.max_members or members, members)
    ticket = kept.ticket.resumed(request_id, deadline, limit, keep=True)
    visit.model = kept.deployment.key
    stopped_by: StoppedBy | None = None
    try:
        outcome = await run(request, ticket, kept.deployment, context)
        published = published_of(outcome, ticket, visit, context)
        stopped_by = outcome.stopped_by
    finally:
        kept_ms = keep_on(request_id, kept, ticket, stopped_by, wanted.keep_ms, context)
    head = close(outcome, ticket, kept.deployment, wanted.deadline_ms, visit, context)
    return encode(head | {"kept_ms": kept_ms}, published, kept.deployment.manifest, set(wanted.outputs))
