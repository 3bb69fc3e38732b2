"""One stream from its first event to its last.

    open ──> chunk, chunk, ... ──> final          confident, complete, told to end, or the service stops
                 └──────────────── error          a bad message, nothing for too long, the first member failed

Each chunk gets exactly one event. One that could not be answered in time is not lost: its event says so, members catch
up with it, and it counts in the answers after it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect

from bundle.exits import confidence
from service import chunk_message
from service.chunk_message import Said
from service.connection import CONNECTION, Connection
from service.context import Context
from service.deployments import Deployment
from service.engine.gate import QueueFull
from service.engine.stream import Part, Stream, stream_key
from service.engine.ticket import Exit, Published, StoppedBy, Ticket
from service.errors import (
    InternalError,
    NoPrefixInTime,
    Problem,
    ShuttingDown,
    StreamIdle,
    Unavailable,
    document,
)
from service.ingress import Visit
from service.mailbox import Gone, Idle, Mailbox, Message, Stopped
from service.routes.answering import check_deadline, check_open, deadline_of, overloaded, published_of
from service.routes.stream_events import ChunkAnswer, event_of, opening
from service.stream_metrics import ChunkOutcome, Ending
from service.stream_schemas import EndedBy, StreamKnobs

log = logging.getLogger(__name__)

NORMAL, GOING_AWAY, BAD_MESSAGE, POLICY, FAILED = 1000, 1001, 1007, 1008, 1011
"""Codes of RFC 6455 with which a stream is closed."""
ANSWERED = 200
"""Status of a chunk that has an answer, as of a request."""


class _End(NamedTuple):
    """How a stream ends: what the metrics call it, and the code it is closed with."""

    ending: Ending
    code: int


class Conversation:
    """One open stream.

    Args:
        socket: not yet accepted.
        mailbox: of its messages.
        wanted: what the query says.
        deployment: leased until the stream ends.
        visit: of the upgrade.
        context: the running service.
    """

    def __init__(
        self,
        socket: WebSocket,
        mailbox: Mailbox,
        wanted: StreamKnobs,
        deployment: Deployment,
        visit: Visit,
        context: Context,
    ) -> None:
        self._socket = socket
        self._mailbox = mailbox
        self._connection: Connection | None = socket.scope["state"].get(CONNECTION)
        self._deadline_ms = wanted.deadline_ms
        self._exit_confidence = wanted.exit_confidence
        self._deployment = deployment
        self._manifest = deployment.manifest
        self._visit = visit
        self._context = context
        self._stream = Stream(deployment.manifest)
        self._profile = deployment.profile.first(len(deployment.manifest.streaming))
        self._ticket: Ticket | None = None
        self._outputs: set[str] = set(wanted.outputs)
        self._answer: ChunkAnswer | None = None
        self._chunk: Visit | None = None
        """Of the chunk whose event has not been sent yet."""

    async def hold(self) -> None:
        """Accept, converse, and close."""
        listening: asyncio.Task[None] | None = None
        end = _End("hung_up", NORMAL)
        try:
            await self._socket.accept(headers=[(b"x-request-id", self._visit.request_id.encode())])
            await self._send(opening(self._manifest, self._visit.request_id))
            listening = asyncio.create_task(self._mailbox.listen())
            end = await self._converse()
            await self._close(end.code)
        except (Gone, WebSocketDisconnect):
            pass
        finally:
            if listening is not None:
                listening.cancel()
            if self._ticket is not None:
                # Whatever its members still owe is of no use to anyone.
                self._context.worker.cancel(self._ticket, StoppedBy.ABANDONED)
            self._context.metrics.streams.ended(self._deployment.key, end.ending, self._steps_seen)

    @property
    def _steps_seen(self) -> int:
        return self._stream.chunks * self._chunk_steps

    @property
    def _chunk_steps(self) -> int:
        return self._manifest.chunk_input.shape[0]

    async def _converse(self) -> _End:
        """Answer chunks until the last event has been sent."""
        try:
            while True:
                end = await self._turn(await self._mailbox.take(self._context.settings.stream_idle_s))
                if end is not None:
                    return end
        except (Stopped, ShuttingDown):
            return await self._finish("shutdown")
        except Idle:
            seconds = self._context.settings.stream_idle_s
            return await self._fail(StreamIdle(f"No message came within {seconds:g} seconds."), _End("idle", POLICY))
        except Problem as problem:
            fault = problem.status >= 500
            return await self._fail(problem, _End("failed", FAILED) if fault else _End("refused", BAD_MESSAGE))
        except (Gone, WebSocketDisconnect):
            raise
        except Exception:
            log.exception("unexpected error", extra={"request_id": self._visit.request_id})
            return await self._fail(InternalError(), _End("failed", FAILED))

    async def _turn(self, message: Message) -> _End | None:
        """Do what a message says; the end, if it was the last."""
        said = chunk_message.read(message.content, self._manifest.chunk_input)
        if said.deadline_ms is not None:
            check_deadline(said.deadline_ms, self._context)
            self._deadline_ms = said.deadline_ms
        problem = await self._take_chunk(said, message.arrived)
        ended_by: EndedBy | None = None
        if said.end:
            ended_by = "end"
        if self._steps_seen >= self._manifest.input.shape[0]:
            ended_by = "complete"
        if problem is None and self._confident():
            ended_by = "exit_confidence"
        if ended_by is not None:
            return await self._finish(ended_by, problem)
        if said.chunk is not None:
            await self._tell("chunk", None, problem)
        return None

    async def _take_chunk(self, said: Said, arrived: float) -> Problem | None:
        """Let the members run on a chunk; why there is no answer to it, if that does not end the stream.

        Raises:
            Problem: it does.
        """
        if said.chunk is None:
            return None
        part = self._stream.extend(said.chunk)
        visit = Visit(f"{self._visit.request_id}-{part.chunks}", arrived, {})
        try:
            self._answer = await self._run(part, said, visit)
            visit.status = ANSWERED
        except (NoPrefixInTime, Unavailable) as problem:
            if isinstance(problem, ShuttingDown):
                raise
            self._context.metrics.rejected(problem.code)
            return problem
        finally:
            self._chunk = visit
        return None

    async def _run(self, part: Part, said: Said, visit: Visit) -> ChunkAnswer:
        context = self._context
        deadline = deadline_of(self._deadline_ms, visit, context)
        check_open(context)
        assert said.chunk is not None
        total = len(self._manifest.streaming)
        self._ticket = ticket = Ticket(
            request_id=visit.request_id,
            model=stream_key(self._deployment.key),
            inputs=said.chunk,
            deadline=deadline,
            profile=self._profile,
            members_total=total,
            member_limit=total,
            exit=self._exit(total),
            task=self._manifest.task,
            part=part,
        )
        try:
            outcome = await context.gate.answer(ticket, context.worker, self._mailbox.connection.watch, context.metrics)
        except QueueFull as full:
            raise overloaded(full) from full
        if outcome.stopped_by is StoppedBy.ABANDONED:
            raise Gone
        published = published_of(outcome, ticket, visit, context)
        elapsed_ms = round((context.clock.now() - visit.arrived) * 1e3, 3)
        certain = self._certainty(published)
        return ChunkAnswer(part.chunks * self._chunk_steps, published, outcome.stopped_by, elapsed_ms, certain)

    def _exit(self, total: int) -> Exit | None:
        if self._exit_confidence is None:
            return None
        return Exit((self._exit_confidence,) * (total - 1), StoppedBy.EXIT_CONFIDENCE)

    def _certainty(self, published: Published) -> float | None:
        if self._manifest.task == "regression":
            return None
        return float(confidence(published.logits, self._profile.temperature[published.members - 1])[0])

    def _confident(self) -> bool:
        """Whether the latest answer is as certain as the client wants it."""
        wanted, answer = self._exit_confidence, self._answer
        if wanted is None or answer is None or answer.confidence is None:
            return False
        return answer.steps == self._steps_seen and answer.confidence >= wanted

    async def _finish(self, ended_by: EndedBy, problem: Problem | None = None) -> _End:
        """Send the last answer."""
        await self._tell("final", ended_by, problem)
        return _End(ended_by, GOING_AWAY if ended_by == "shutdown" else NORMAL)

    async def _fail(self, problem: Problem, end: _End) -> _End:
        """Send a problem document as the last event."""
        self._context.metrics.rejected(problem.code)
        fields = orjson.loads(document(problem, self._visit.request_id))
        await self._send({"event": "error", "steps_seen": self._steps_seen, **fields})
        return end

    async def _tell(self, event: Literal["chunk", "final"], ended_by: EndedBy | None, problem: Problem | None) -> None:
        answer = self._answer if problem is None or event == "final" else None
        told = event_of(event, answer, self._manifest, self._steps_seen, self._outputs)
        told |= {
            "ended_by": ended_by,
            "problem": None if problem is None else {"code": problem.code, "detail": problem.detail},
        }
        await self._send(told)

    async def _send(self, event: dict[str, Any]) -> None:
        text = orjson.dumps(event, option=orjson.OPT_SERIALIZE_NUMPY).decode()
        held_up = self._connection is not None and self._connection.clogged
        try:
            await self._socket.send({"type": "websocket.send", "text": text})
        except RuntimeError as error:
            # What uvicorn raises after it has closed the connection itself, for a message that was too large.
            raise Gone from error
        chunk, self._chunk = self._chunk, None
        if chunk is not None:
            chunk.held_up = held_up
            self._count(chunk)

    def _count(self, chunk: Visit) -> None:
        """The event of a chunk has been handed to the socket: learn from it, count it."""
        now = self._context.clock.now()
        if chunk.decided is not None and chunk.held_up:
            now = chunk.decided
        elif chunk.decided is not None:
            self._context.reserve.observe(now - chunk.decided, now)
        late = chunk.deadline is not None and now > chunk.deadline.at
        outcome: ChunkOutcome = "late" if late else "answered"
        if chunk.status != ANSWERED:
            # The event may be the last one of the stream, and repeat the answer to an earlier chunk.
            outcome = "unanswered"
        self._context.metrics.streams.chunk(self._deployment.key, outcome)

    async def _close(self, code: int) -> None:
        with suppress(RuntimeError):
            await self._socket.send({"type": "websocket.close", "code": code})
