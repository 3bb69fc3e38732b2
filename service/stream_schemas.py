"""What goes over the WebSocket of GET /stream."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from service.schema import Answered, Asked, Output, example


class StreamKnobs(Asked):
    """What a stream is asked for, in the query of GET /stream."""

    model: str | None = None
    """Name of the bundle; may be left out while only one is served."""
    version: Annotated[int, Field(ge=1)] | None = None
    """Version of the bundle; absent: the highest that is served. The stream stays with it to its end."""
    deadline_ms: Annotated[float | None, Field(json_schema_extra={"exclusiveMinimum": 0})] = None
    """Milliseconds from the arrival of a chunk to its answer. Absent: all members are run on each chunk."""
    exit_confidence: Annotated[float | None, Field(gt=0, le=1)] = None
    """End the stream with the first answer whose calibrated confidence reaches this."""
    outputs: Annotated[list[Output], Field(strict=False)] = []
    """What each answer of a classifier holds beside class, index and confidence."""


class StreamMessage(Asked):
    """A text message of a stream's client. A binary one is a chunk as one .npy array."""

    model_config = example({"inputs": [[0.1, 0.2], [0.3, 0.4]]})

    inputs: Annotated[Any, WithJsonSchema({"type": ["array", "null"], "items": {}})] = None
    """One chunk: the steps that follow those before, in the shape that the `open` event gives."""
    deadline_ms: Annotated[float | None, Field(json_schema_extra={"exclusiveMinimum": 0})] = None
    """For this chunk and those after it, in place of the query's."""
    end: bool = False
    """The stream ends with this message."""


EndedBy = Literal["exit_confidence", "complete", "end", "shutdown"]


class StreamProblem(Answered):
    """Why a chunk was not answered; the stream goes on."""

    code: str
    detail: str


class StreamEvent(Answered):
    """The answer to one chunk of a stream; the one of the kind `final` is the last."""

    model_config = example(
        {
            "event": "chunk",
            "steps_seen": 40,
            "steps": 40,
            "members_used": 2,
            "members_total": 3,
            "class": "yes",
            "index": 11,
            "confidence": 0.81,
            "elapsed_ms": 1.92,
            "stopped_by": "deadline",
            "ended_by": None,
            "problem": None,
        }
    )

    event: Literal["chunk", "final"]
    steps_seen: int
    """Of the sequence, by the service."""
    steps: int
    """Of the sequence, by the answer: fewer than `steps_seen` only in a `final` event whose chunk could not be answered
    in time; 0 where there is no answer."""
    members_used: int
    """The answer is the mean of so many members, each of which has seen all these steps."""
    members_total: int
    class_: Annotated[str | None, Field(alias="class")] = None
    index: int | None = None
    confidence: float | None = None
    """Calibrated on whole sequences: of a part of one it is an indication."""
    probabilities: list[float] | None = None
    logits: list[float] | None = None
    values: list[float] | None = None
    """Of a regression."""
    elapsed_ms: float | None
    """From the arrival of the chunk to the answer."""
    stopped_by: Literal["complete", "deadline", "exit_confidence", "member_failed", "shutdown"] | None
    """Why no further member was run."""
    ended_by: EndedBy | None
    """Why this is the last event."""
    problem: StreamProblem | None
    """Why this chunk has no answer."""
