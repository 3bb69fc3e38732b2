"""Prometheus instruments of the steps that the device runs."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram

from service.buckets import ROWS, SECONDS
from service.engine.step import Step


@dataclass(frozen=True, slots=True)
class _Series:
    """Of one model, a list with one instrument for each member."""

    duration: list[Histogram]
    rows: list[Histogram]
    given_up: list[Counter]
    together: dict[range, tuple[Histogram, Histogram]]
    """Duration and rows of steps of several members."""


class StepMetrics:
    """Instruments by `model`, `name/version` or a stream key, and `member`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._duration = Histogram(
            "anytime_member_duration_seconds",
            "One step of a member, or of several together, as in 1-5.",
            ("model", "member"),
            buckets=SECONDS,
            registry=registry,
        )
        self._rows = Histogram(
            "anytime_batch_rows", "Rows in a step.", ("model", "member"), buckets=ROWS, registry=registry
        )
        self._given_up = Counter(
            "anytime_steps_given_up",
            "Optional steps ended early for a request that came.",
            ("model", "member"),
            registry=registry,
        )
        self._series: dict[str, _Series] = {}

    def serve(self, model: str, members: int) -> None:
        """Make the series of a model's members."""
        self._series[model] = _Series(
            [self._duration.labels(model, member) for member in range(members)],
            [self._rows.labels(model, member) for member in range(members)],
            [self._given_up.labels(model, member) for member in range(members)],
            {},
        )

    def forget(self, model: str) -> None:
        """Drop the series of a model that has been unloaded."""
        self._series.pop(model, None)
        for instrument in (self._duration, self._rows, self._given_up):
            instrument.remove_by_labels({"model": model})

    def done(self, step: Step, duration_s: float | None) -> None:
        """A step has been run, or given up if it has no duration; rehearsals on nobody's rows are left out."""
        series = self._series.get(step.model)
        if not step.tickets or series is None:
            return
        if duration_s is None:
            series.given_up[step.member].inc()
            return
        if step.width > 1:
            duration, rows = self._together(series, step.model, step.members)
        else:
            duration, rows = series.duration[step.member], series.rows[step.member]
        duration.observe(duration_s)
        rows.observe(step.rows)

    def _together(self, series: _Series, model: str, members: range) -> tuple[Histogram, Histogram]:
        if members not in series.together:
            label = f"{members.start}-{members[-1]}"
            series.together[members] = self._duration.labels(model, label), self._rows.labels(model, label)
        return series.together[members]
