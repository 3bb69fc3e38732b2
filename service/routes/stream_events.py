"""What the client of a stream is told: the first event, and that of each chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from bundle import Manifest
from service.engine.ticket import Published, StoppedBy
from service.routes.answering import predictions


@dataclass(frozen=True, slots=True)
class ChunkAnswer:
    """What has been said of the sequence up to some step."""

    steps: int
    published: Published
    stopped_by: StoppedBy
    elapsed_ms: float
    confidence: float | None
    """Calibrated; None for a regression."""


def opening(manifest: Manifest, request_id: str) -> dict[str, object]:
    """The event `open`: what the stream is, and what a chunk must be."""
    chunk = manifest.chunk_input
    return {
        "event": "open",
        "model": manifest.name,
        "version": manifest.version,
        "request_id": request_id,
        "chunk": {"dtype": chunk.dtype, "shape": list(chunk.shape)},
        "steps_total": manifest.input.shape[0],
        "members_total": len(manifest.streaming),
    }


def event_of(
    event: Literal["chunk", "final"],
    answer: ChunkAnswer | None,
    manifest: Manifest,
    steps_seen: int,
    outputs: set[str],
) -> dict[str, Any]:
    """The fields of `service.stream_schemas.StreamEvent` that follow from an answer; None: there is none."""
    return {
        "event": event,
        "steps_seen": steps_seen,
        "steps": 0 if answer is None else answer.steps,
        "members_used": 0 if answer is None else answer.published.members,
        "members_total": len(manifest.streaming),
        **_numbers(answer, manifest, outputs),
        "elapsed_ms": None if answer is None else answer.elapsed_ms,
        "stopped_by": None if answer is None else answer.stopped_by,
    }


def _numbers(answer: ChunkAnswer | None, manifest: Manifest, outputs: set[str]) -> dict[str, Any]:
    if manifest.task == "regression":
        return {"values": None if answer is None else answer.published.logits[0]}
    if answer is None:
        return {"class": None, "index": None, "confidence": None}
    return {**predictions(answer.published, manifest, outputs)[0], "confidence": answer.confidence}
