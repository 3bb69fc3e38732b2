"""Prometheus instruments, on a registry that the caller brings.

Durations are seconds. `model` is `name/version`. Counters of rows come in pairs, so that a ratio over any window
and any fleet can be computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from bundle import Manifest
from service.engine.scheduler import Step
from service.engine.ticket import Ticket
from service.ingress import Visit
from service.ledger import Classes

SECONDS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
OVERSHOOT_SECONDS = (0, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.5)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
MEMBERS = (*range(1, 17), 24, 32)


class Metrics:
    """All instruments of the service."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._latency = self._histogram(
            "request_duration_seconds", "From the request's head to the answer's last byte.", SECONDS, "path", "status"
        )
        self._deadlines = self._counter("deadlines", "Requests with a deadline: met, late, unanswered.", "outcome")
        self._overshoot = self._histogram(
            "deadline_overshoot_seconds", "Time past the deadline at the answer's last byte; 0 when met.",
            OVERSHOOT_SECONDS, "model",
        )  # fmt: skip
        self._members_used = self._histogram("members_used", "Members in the answer.", MEMBERS, "model", "stopped_by")
        self._member_duration = self._histogram(
            "member_duration_seconds", "One step of a member.", SECONDS, "model", "member"
        )
        self._queue_time = self._histogram(
            "queue_duration_seconds", "From the request's head to its first step.", SECONDS, "model"
        )
        self._batch_rows = self._histogram("batch_rows", "Rows in a step.", ROWS, "model", "member")
        self._rejected = self._counter("rejected", "Requests answered by a problem document.", "reason")
        self._in_flight = Gauge("anytime_requests_in_flight", "Requests admitted and not answered.", registry=registry)
        self._rows_in_flight = Gauge("anytime_rows_in_flight", "Rows admitted and not answered.", registry=registry)
        self._accuracy = Gauge(
            "anytime_prefix_accuracy",
            "Accuracy after each number of members; source: validation (the manifest's) or feedback.",
            ["model", "members", "source"],
            registry=registry,
        )
        self._labelled = self._counter("feedback_rows", "Labelled rows, by prefix.", "model", "members")
        self._correct = self._counter("feedback_correct_rows", "Those the prefix had right.", "model", "members")
        self._compared = self._counter(
            "prefix_rows", "Rows of requests that ran all members, by prefix.", "model", "members"
        )
        self._agreeing = self._counter(
            "prefix_agreeing_rows", "Those on which the prefix named the class of the full ensemble.",
            "model", "members",
        )  # fmt: skip
        self._counts: dict[tuple[str, int], tuple[int, int]] = {}

    def serve(self, model: str, manifest: Manifest) -> None:
        """Show a bundle's accuracies from its held-out split."""
        for prefix in manifest.prefixes:
            self._accuracy.labels(model, prefix.members, "validation").set(prefix.accuracy)

    def watch(self, requests_in_flight: Callable[[], float], rows_in_flight: Callable[[], float]) -> None:
        """Read the gauges of what is in flight from these, at each scrape."""
        self._in_flight.set_function(requests_in_flight)
        self._rows_in_flight.set_function(rows_in_flight)

    def step_done(self, step: Step, duration_s: float) -> None:
        """The worker's `on_step`; rehearsals on nobody's rows are left out."""
        if step.tickets:
            self._member_duration.labels(step.model, step.member).observe(duration_s)
            self._batch_rows.labels(step.model, step.member).observe(step.rows)

    def answered(self, visit: Visit, now: float) -> None:
        """The ingress' `on_answered`."""
        path = visit.path if visit.status not in {404, 405} else "unknown"
        self._latency.labels(path, visit.status).observe(now - visit.arrived)
        if visit.deadline is None:
            return
        late_s = now - visit.deadline.at
        if visit.status == 200:
            self._deadlines.labels("late" if late_s > 0 else "met").inc()
            self._overshoot.labels(visit.model).observe(max(0.0, late_s))
        elif visit.status >= 500:
            self._deadlines.labels("unanswered").inc()

    def rejected(self, code: str) -> None:
        """A problem document went out."""
        self._rejected.labels(code).inc()

    def predicted(self, ticket: Ticket, stopped_by: str, classes_by_prefix: Sequence[Classes]) -> None:
        """A prediction is about to go out."""
        used = len(classes_by_prefix)
        self._members_used.labels(ticket.model, stopped_by).observe(used)
        if ticket.started is not None:
            self._queue_time.labels(ticket.model).observe(ticket.started - ticket.deadline.arrived)
        if used == ticket.members_total:
            for members, classes in enumerate(classes_by_prefix, start=1):
                agreeing = int(np.count_nonzero(classes == classes_by_prefix[-1]))
                self._compared.labels(ticket.model, members).inc(len(classes))
                self._agreeing.labels(ticket.model, members).inc(agreeing)

    def labelled(self, model: str, members: int, correct: int, rows: int) -> None:
        """Feedback has come for a prefix."""
        self._labelled.labels(model, members).inc(rows)
        self._correct.labels(model, members).inc(correct)
        right, total = self._counts.get((model, members), (0, 0))
        self._counts[model, members] = right, total = right + correct, total + rows
        self._accuracy.labels(model, members, "feedback").set(right / total)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"anytime_{name}", text, labels, buckets=buckets, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"anytime_{name}", text, labels, registry=self.registry)
