"""Prometheus instruments of the streams; steps of their members are counted with those of all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.stream_schemas import EndedBy

Ending = Literal[EndedBy, "hung_up", "idle", "refused", "failed"]
"""How a stream ended; `refused`: by a message that cannot be what it is, `failed`: by the service's fault."""

ChunkOutcome = Literal["answered", "late", "unanswered"]

STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class StreamMetrics:
    """Instruments by `model`, `name/version`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._open = Gauge("anytime_streams_open", "Streams that are open.", registry=registry)
        self._ended = Counter(
            "anytime_streams_ended", "Streams, by how they ended.", ("model", "ended_by"), registry=registry
        )
        self._chunks = Counter(
            "anytime_stream_chunks",
            "Chunks of streams: answered, late (answered after the deadline), unanswered for want of time or room.",
            ("model", "outcome"),
            registry=registry,
        )
        self._exit_steps = Histogram(
            "anytime_stream_exit_steps",
            "Steps seen by streams that ended early, at their confidence.",
            ("model",),
            buckets=STEPS,
            registry=registry,
        )

    def watch(self, streams_open: Callable[[], float]) -> None:
        """Read this at each scrape."""
        self._open.set_function(streams_open)

    def serve(self, model: str) -> None:
        """Make the series of a bundle with chunk graphs."""
        for ending in _endings():
            self._ended.labels(model, ending)
        for outcome in get_args(ChunkOutcome):
            self._chunks.labels(model, outcome)
        self._exit_steps.labels(model)

    def forget(self, model: str) -> None:
        """Drop the series of a bundle that has been unloaded."""
        for instrument in (self._ended, self._chunks, self._exit_steps):
            instrument.remove_by_labels({"model": model})

    def chunk(self, model: str, outcome: ChunkOutcome) -> None:
        """A chunk has been told its answer, or that there is none."""
        self._chunks.labels(model, outcome).inc()

    def ended(self, model: str, ending: Ending, steps: int) -> None:
        """A stream has ended when `steps` steps had been seen."""
        self._ended.labels(model, ending).inc()
        if ending == "exit_confidence":
            self._exit_steps.labels(model).observe(steps)


def _endings() -> list[str]:
    return [*get_args(EndedBy), "hung_up", "idle", "refused", "failed"]
