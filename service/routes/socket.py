"""GET /stream: a WebSocket on which a sequence comes in chunks, and each chunk is answered by its deadline."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from fastapi import APIRouter, Request, WebSocket
from starlette.responses import Response

from service.access import is_foreign
from service.body import query_of
from service.context import Context
from service.deployments import Deployment
from service.engine.stream import stream_bytes
from service.errors import ForeignOrigin, InvalidField, NotStreamable, Problem, UpgradeRequired, problem_response
from service.ingress import Visit, visit_of
from service.mailbox import Mailbox
from service.routes.answering import check_deadline, check_open, check_outputs
from service.routes.conversation import Conversation
from service.routes.documented import parameters, problems
from service.stream_schemas import StreamKnobs

router = APIRouter()

OPENED: dict[int | str, dict[str, Any]] = {
    101: {"description": "The WebSocket is open; docs/stream.md says what goes over it."}
}


@router.get(
    "/stream",
    summary="A sequence in chunks, answered early",
    status_code=101,
    response_class=Response,
    responses=problems(401, 403, 404, 422, 426, 503) | OPENED,
    openapi_extra={"parameters": parameters(StreamKnobs)},
)
async def upgrade(request: Request) -> Response:
    """For a WebSocket only, and for models of recurrent members with chunk graphs.

    The client sends chunks (binary: one .npy array; text: a `StreamMessage`); the service answers each with a
    `StreamEvent` by the deadline, and closes when it is confident, at the end of the sequence, or when it is told.
    """
    problem = UpgradeRequired(f"{request.url.path} is a WebSocket: ask for it with `Upgrade: websocket`.")
    problem.headers["upgrade"] = "websocket"
    raise problem


@router.websocket("/stream")
async def stream(socket: WebSocket) -> None:
    """Open a stream, or answer with a problem document in place of the upgrade."""
    context: Context = socket.app.state.context
    visit = visit_of(socket)
    mailbox = Mailbox(socket.receive, context.clock)
    with ExitStack() as held:
        try:
            _check_origin(visit)
            wanted = query_of(socket.scope["query_string"], StreamKnobs)
            check_open(context)
            deployment = _deployment(wanted, context)
            held.enter_context(context.streams.open(mailbox, stream_bytes(deployment.manifest)))
        except Problem as problem:
            context.metrics.rejected(problem.code)
            await problem_response(problem, visit.request_id)(socket.scope, socket.receive, socket.send)
            return
        held.enter_context(context.repository.lease(deployment))
        await Conversation(socket, mailbox, wanted, deployment, visit, context).hold()


def _deployment(wanted: StreamKnobs, context: Context) -> Deployment:
    check_deadline(wanted.deadline_ms, context)
    deployment = context.deployments.find(wanted.model, wanted.version)
    manifest = deployment.manifest
    if not manifest.streaming:
        raise NotStreamable(
            f"Model {manifest.name!r} has no chunk graphs: send whole samples to POST /predict, "
            "or train recurrent members with `chunk_steps`."
        )
    if manifest.task == "regression" and wanted.exit_confidence is not None:
        raise InvalidField(
            "Field `exit_confidence`: a regression has no such thing; leave it out.", field="exit_confidence"
        )
    check_outputs(wanted.outputs, deployment)
    return deployment


def _check_origin(visit: Visit) -> None:
    """Browsers let any page open a WebSocket to any host."""
    if is_foreign(visit.headers):
        raise ForeignOrigin("A page may open streams only to the host it came from.")
