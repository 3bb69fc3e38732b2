"""Prometheus instruments, on a registry that the caller brings.

Durations are seconds. `model` is `name/version`. Every series whose labels are known at start exists from then on:
`increase()` cannot see the first event of a series that was not there before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from bundle import Manifest
from service.buckets import SECONDS
from service.engine.gate import Fate
from service.engine.stream import stream_key
from service.engine.ticket import StoppedBy, Ticket
from service.errors import codes
from service.ingress import Visit
from service.ledger import Classes
from service.quality_metrics import QualityMetrics
from service.step_metrics import StepMetrics
from service.stream_metrics import StreamMetrics

Instrument = TypeVar("Instrument", bound=MetricWrapperBase)

OVERSHOOT_SECONDS = (0, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.5)
MEMBERS = (*range(1, 17), 24, 32)
ANSWERS = tuple(reason for reason in StoppedBy if reason is not StoppedBy.ABANDONED)


@dataclass(frozen=True, slots=True)
class _Model:
    """Instruments of one model: looked up by label once, not at every request."""

    overshoot: Histogram
    queue_time: Histogram
    members_used: dict[str, Histogram]


class Metrics:
    """All instruments of the service."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.steps = StepMetrics(registry)
        self.streams = StreamMetrics(registry)
        self.quality = QualityMetrics(registry)
        self._models: dict[str, _Model] = {}
        self._labelled_by_model: list[MetricWrapperBase] = []
        self._latencies: dict[tuple[str, int], Histogram] = {}
        self._latency = self._histogram(
            "request_duration_seconds", "From the request's head to the answer's last byte.", SECONDS, "path", "status"
        )
        deadlines = self._counter("deadlines", "Requests with a deadline: met, late, unanswered.", "outcome")
        self._deadlines = {outcome: deadlines.labels(outcome) for outcome in ("met", "late", "unanswered")}
        rejected = self._counter("rejected", "Requests answered by a problem document.", "reason")
        self._rejected = {code: rejected.labels(code) for code in codes()}
        self._admitted = self._counter("admitted", "Requests that the engine took.")
        ended = self._counter(
            "ended", "How they ended: answered, failed (no prefix, or too short), cancelled (client gone).", "outcome"
        )
        self._ended = {outcome: ended.labels(outcome) for outcome in get_args(Fate)}
        loads = self._counter("model_loads", "Versions loaded, failed to load, unloaded, while running.", "outcome")
        self._loads = {outcome: loads.labels(outcome) for outcome in ("loaded", "failed", "unloaded")}
        self._restarts = self._counter("device_restarts", "Restarts of the device thread after a bug had ended it.")
        self._overshoot = self._histogram(
            "deadline_overshoot_seconds",
            "Time past the deadline at the answer's last byte; 0 when met.",
            OVERSHOOT_SECONDS,
            "model",
        )
        self._queue_time = self._histogram(
            "queue_duration_seconds", "From the request's head to its first step.", SECONDS, "model"
        )
        self._members_used = self._histogram("members_used", "Members in the answer.", MEMBERS, "model", "stopped_by")

    def serve(self, model: str, manifest: Manifest) -> None:
        """Make the instruments of a served bundle."""
        self._models[model] = _Model(
            overshoot=self._overshoot.labels(model),
            queue_time=self._queue_time.labels(model),
            members_used={reason: self._members_used.labels(model, reason) for reason in ANSWERS},
        )
        self.quality.serve(model, manifest)
        self.steps.serve(model, len(manifest.members))
        if manifest.streaming:
            self.steps.serve(stream_key(model), len(manifest.streaming))
            self.streams.serve(model)

    def forget(self, model: str) -> None:
        """Drop the series of a bundle that has been unloaded."""
        self._models.pop(model, None)
        for instrument in self._labelled_by_model:
            instrument.remove_by_labels({"model": model})
        self.quality.forget(model)
        self.steps.forget(model)
        self.steps.forget(stream_key(model))
        self.streams.forget(model)

    def watch(
        self,
        *,
        requests_in_flight: Callable[[], float],
        rows_in_flight: Callable[[], float],
        kept_requests: Callable[[], float],
        kept_bytes: Callable[[], float],
        ungraphed_members: Callable[[], float],
        ready: Callable[[], float],
        device_thread_alive: Callable[[], float],
    ) -> None:
        """Read these at each scrape."""
        for name, text, value in (
            ("requests_in_flight", "Requests admitted and not answered.", requests_in_flight),
            ("rows_in_flight", "Rows admitted and not answered.", rows_in_flight),
            ("kept_requests", "Answered requests that can be continued.", kept_requests),
            ("kept_bytes", "What their states may hold.", kept_bytes),
            ("ungraphed_members", "Members that run without CUDA graphs on a CUDA device.", ungraphed_members),
            ("ready", "1 once all members have been measured.", ready),
            ("device_thread_alive", "1 while the thread that runs members lives.", device_thread_alive),
        ):
            self._gauge(name, text).set_function(value)

    def answered(self, visit: Visit, now: float) -> None:
        """The ingress' `on_answered`."""
        self._latency_of(visit.route, visit.status).observe(now - visit.arrived)
        if visit.deadline is None:
            return
        ready = visit.decided if visit.held_up and visit.decided is not None else now
        late_s = ready - visit.deadline.at
        if visit.status == 200:
            self._deadlines["late" if late_s > 0 else "met"].inc()
            model = self._models.get(visit.model)
            # None: the last byte went out after the model had been unloaded.
            if model is not None:
                model.overshoot.observe(max(0.0, late_s))
        elif visit.status >= 500:
            self._deadlines["unanswered"].inc()

    def rejected(self, code: str) -> None:
        """A problem document went out."""
        self._rejected[code].inc()

    def admitted(self) -> None:
        """The engine has taken a request."""
        self._admitted.inc()

    def ended(self, fate: Fate) -> None:
        """A request that was admitted has left the engine."""
        self._ended[fate].inc()

    def loaded(self, outcome: Literal["loaded", "failed", "unloaded"]) -> None:
        """A version has come, could not come, or has gone."""
        self._loads[outcome].inc()

    def restarted(self) -> None:
        """The device thread runs again."""
        self._restarts.inc()

    def predicted(
        self, ticket: Ticket, stopped_by: StoppedBy, used: int, classes_by_prefix: Sequence[Classes | None]
    ) -> None:
        """A prediction is about to go out; `classes_by_prefix` is empty for a regression."""
        model = self._models[ticket.model]
        model.members_used[stopped_by].observe(used)
        if ticket.started is not None:
            model.queue_time.observe(ticket.started - ticket.deadline.arrived)
        # Where rows may leave, those that stay are the hard ones.
        if used == ticket.members_total and classes_by_prefix and ticket.comparable is None:
            self.quality.agreed(ticket.model, classes_by_prefix)

    def _latency_of(self, route: str, status: int) -> Histogram:
        """Looked up by label once: that costs as much as all the rest."""
        child = self._latencies.get((route, status))
        if child is None:
            child = self._latencies[route, status] = self._latency.labels(route, status)
        return child

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return self._noted(Histogram(f"anytime_{name}", text, labels, buckets=buckets, registry=self.registry), labels)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return self._noted(Counter(f"anytime_{name}", text, labels, registry=self.registry), labels)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return self._noted(Gauge(f"anytime_{name}", text, labels, registry=self.registry), labels)

    def _noted(self, instrument: Instrument, labels: tuple[str, ...]) -> Instrument:
        if "model" in labels:
            self._labelled_by_model.append(instrument)
        return instrument
