"""POST /predict/stream: the answer as it gets better, one server-sent event per finished prefix."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.body import read_predict
from service.connection import hang_up
from service.context import Context, context_of
from service.deployments import Deployment
from service.engine.gate import Outcome, QueueFull
from service.engine.progress import refine
from service.engine.ticket import Published, StoppedBy, Ticket
from service.errors import HungUp
from service.ingress import Visit, visit_of
from service.keeping import keep
from service.routes.answering import admit, answers, close, expected, overloaded, published_of
from service.routes.documented import body_or_array, events, problems
from service.schemas import Knobs, PredictRequest

router = APIRouter()

MEDIA_TYPE = "text/event-stream"


@router.post(
    "/predict/stream",
    summary="The answer as it gets better",
    response_class=Response,
    responses=problems(400, 401, 404, 408, 413, 422, 500, 503, 504) | events(),
    openapi_extra=body_or_array(PredictRequest),
)
async def predict_stream(request: Request) -> Response:
    """As POST /predict, but each prefix is an event as soon as it is finished, and the answer is the last event.

    `prefix` events hold a `Progress`, the `answer` event a `PredictResponse`. A client that reads more slowly than
    members finish misses prefixes in between, never the answer. What is refused before the first prefix is finished
    is an ordinary problem document.
    """
    context, visit = context_of(request), visit_of(request)
    wanted, inputs = await read_predict(request)
    ticket, deployment = admit(wanted, inputs, visit, context)
    # The ticket has them as an array.
    del inputs
    conversation = Conversation(wanted, ticket, deployment, visit, context)
    news = refine(context.gate, ticket, context.worker, hang_up(request), context.metrics)
    news = _leased(context, deployment, news)
    try:
        first = await anext(news)
    except QueueFull as full:
        raise overloaded(full) from full
    if isinstance(first, Outcome) and first.stopped_by is StoppedBy.ABANDONED:
        raise HungUp("The client has hung up.")
    return EventStream(conversation.events(conversation.encode(first), news))


async def _leased(
    context: Context, deployment: Deployment, news: AsyncGenerator[Published | Outcome]
) -> AsyncGenerator[Published | Outcome]:
    """`news`, the deployment kept on the device until its end."""
    with context.repository.lease(deployment):
        async with aclosing(news):
            async for one in news:
                yield one


class Conversation:
    """One streamed request: turns what the engine tells of it into events."""

    def __init__(self, wanted: Knobs, ticket: Ticket, deployment: Deployment, visit: Visit, context: Context) -> None:
        self._wanted = wanted
        self._ticket = ticket
        self._deployment = deployment
        self._visit = visit
        self._context = context

    def encode(self, news: Published | Outcome) -> bytes:
        """The event for a prefix, or for the answer; nothing once the client has gone.

        Raises:
            Problem: the request ended without a prefix.
        """
        if isinstance(news, Published):
            now = self._context.clock.now()
            progress = {
                "members_used": news.members,
                "members_total": self._ticket.members_total,
                "elapsed_ms": round((now - self._visit.arrived) * 1e3, 3),
                **expected(news, self._deployment.manifest),
            }
            return _event("prefix", progress | self._predictions(news))
        if news.stopped_by is StoppedBy.ABANDONED:
            # Neither met nor missed.
            self._visit.deadline = None
            return b""
        wanted, ticket, deployment, context = self._wanted, self._ticket, self._deployment, self._context
        published = published_of(news, ticket, self._visit, context)
        kept_ms = keep(ticket, deployment, news.stopped_by, wanted.keep_ms, context)
        head = close(news, ticket, deployment, wanted.deadline_ms, self._visit, context) | {"kept_ms": kept_ms}
        return _event("answer", head | self._predictions(published))

    async def events(self, first: bytes, news: AsyncGenerator[Published | Outcome]) -> AsyncGenerator[bytes]:
        """`first`, then an event for each further thing the engine tells."""
        async with aclosing(news):
            yield first
            async for one in news:
                yield self.encode(one)

    def _predictions(self, published: Published) -> dict[str, object]:
        return answers(published, self._deployment.manifest, set(self._wanted.outputs))


class EventStream(Response):
    """Sends events as they come; the next one is asked for when the client's socket has taken the one before."""

    media_type = MEDIA_TYPE

    def __init__(self, events: AsyncGenerator[bytes]) -> None:
        # A proxy that collected events would defeat them.
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._events) as events:
            async for event in events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _event(name: str, data: dict[str, object]) -> bytes:
    # JSON without line breaks: one data line.
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY))
