"""Prometheus instruments of how good the answers are, by prefix: from the held-out split, from feedback, by agreement.

Counters of rows come in pairs, so that a ratio over any window and any fleet can be computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge

from bundle import Manifest
from service.ledger import Classes

LABELS = ("model", "members")


@dataclass(frozen=True, slots=True)
class _Prefix:
    """Instruments of one prefix of a classifier, looked up by label once."""

    labelled: Counter
    correct: Counter
    compared: Counter
    agreeing: Counter


@dataclass(frozen=True, slots=True)
class _Regression:
    """Instruments of one prefix of a regression."""

    labelled: Counter
    squared_error: Counter


class QualityMetrics:
    """Instruments by `model`, `name/version`, and `members`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        gauge, counter = partial(Gauge, registry=registry), partial(Counter, registry=registry)
        self._accuracy = gauge(
            "anytime_prefix_accuracy",
            "Accuracy after each number of members; source: validation (the manifest's) or feedback.",
            (*LABELS, "source"),
        )
        self._rmse = gauge(
            "anytime_prefix_rmse",
            "Regression: root mean squared error after each number of members, on the manifest's held-out split.",
            LABELS,
        )
        self._labelled = counter("anytime_feedback_rows", "Labelled rows, by prefix.", LABELS)
        self._correct = counter("anytime_feedback_correct_rows", "Those the prefix had right.", LABELS)
        self._squared_error = counter(
            "anytime_feedback_squared_error",
            "Regression: squared error of labelled rows, mean over outputs, by prefix.",
            LABELS,
        )
        self._compared = counter("anytime_prefix_rows", "Rows of requests that ran all members, by prefix.", LABELS)
        self._agreeing = counter(
            "anytime_prefix_agreeing_rows",
            "Those on which the prefix named the class of the full ensemble.",
            LABELS,
        )
        self._prefixes: dict[str, list[_Prefix]] = {}
        self._regressions: dict[str, list[_Regression]] = {}
        self._counts: dict[tuple[str, int], tuple[int, int]] = {}

    def serve(self, model: str, manifest: Manifest) -> None:
        """Make the series of a model's prefixes, and show what the held-out split says of them."""
        depths = range(1, len(manifest.members) + 1)
        if manifest.task == "regression":
            self._regressions[model] = [
                _Regression(self._labelled.labels(model, depth), self._squared_error.labels(model, depth))
                for depth in depths
            ]
        else:
            counters = (self._labelled, self._correct, self._compared, self._agreeing)
            self._prefixes[model] = [_Prefix(*(one.labels(model, depth) for one in counters)) for depth in depths]
        for prefix in manifest.prefixes:
            if prefix.accuracy is not None:
                self._accuracy.labels(model, prefix.members, "validation").set(prefix.accuracy)
            if prefix.rmse is not None:
                self._rmse.labels(model, prefix.members).set(prefix.rmse)

    def forget(self, model: str) -> None:
        """Drop the series of a model that has been unloaded."""
        self._prefixes.pop(model, None)
        self._regressions.pop(model, None)
        self._counts = {key: value for key, value in self._counts.items() if key[0] != model}
        for instrument in (
            self._accuracy,
            self._rmse,
            self._labelled,
            self._correct,
            self._squared_error,
            self._compared,
            self._agreeing,
        ):
            instrument.remove_by_labels({"model": model})

    def agreed(self, model: str, classes_by_prefix: Sequence[Classes | None]) -> None:
        """All members of a classifier have named their classes; None: a member that was left out."""
        for prefix, classes in zip(self._prefixes[model], classes_by_prefix, strict=True):
            if classes is None:
                continue
            prefix.compared.inc(len(classes))
            prefix.agreeing.inc(int(np.count_nonzero(classes == classes_by_prefix[-1])))

    def labelled(self, model: str, members: int, correct: int, rows: int) -> None:
        """Feedback has come for a prefix; nobody looks at that of an unloaded model."""
        if model not in self._prefixes:
            return
        prefix = self._prefixes[model][members - 1]
        prefix.labelled.inc(rows)
        prefix.correct.inc(correct)
        right, total = self._counts.get((model, members), (0, 0))
        self._counts[model, members] = right, total = right + correct, total + rows
        # Not made before there is feedback: an accuracy of 0 would be a lie.
        self._accuracy.labels(model, members, "feedback").set(right / total)

    def labelled_values(self, model: str, members: int, squared_error: float, rows: int) -> None:
        """Feedback has come for a prefix of a regression; `squared_error` is the sum over rows."""
        if model not in self._regressions:
            return
        prefix = self._regressions[model][members - 1]
        prefix.labelled.inc(rows)
        prefix.squared_error.inc(squared_error)
