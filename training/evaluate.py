"""Quality of every prefix, measured as it is served: through onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import r2_score

from bundle import Prefix, Scores

BINS = 15
"""Equal-width bins of confidence for the calibration error."""

Array = npt.NDArray[Any]


def measure(
    logits: Sequence[Array], y: Array, teacher_NL: Array, flops: Sequence[float], teacher_flops: float
) -> tuple[Prefix, ...]:
    """One entry for each prefix.

    Args:
        logits: the answer (N, L) after each member, as :func:`bundle.reference.running_average` yields them.
        y: labels (N,).
        teacher_NL: the teacher's logits on the same samples.
        flops: FLOPs of each member.
        teacher_flops: what the fractions are of.
    """
    teacher = teacher_NL.argmax(axis=1)
    costs = np.cumsum(flops) / teacher_flops
    return tuple(
        Prefix(
            members=k,
            accuracy=float((logits_NL.argmax(axis=1) == y).mean()),
            agreement=float((logits_NL.argmax(axis=1) == teacher).mean()),
            **dict(scores(logits_NL, y)),
            flops_fraction=float(costs[k - 1]),
        )
        for k, logits_NL in enumerate(logits, start=1)
    )


def measure_regression(
    values: Sequence[Array], y: Array, teacher_NL: Array, flops: Sequence[float], teacher_flops: float
) -> tuple[Prefix, ...]:
    """As :func:`measure`, for values (N, L), labels (N, L) and the teacher's values, all in the same unit."""
    costs = np.cumsum(flops) / teacher_flops
    return tuple(
        Prefix(
            members=k,
            rmse=rmse(values_NL, y),
            r2=r2(values_NL, y),
            teacher_rmse=rmse(values_NL, teacher_NL),
            flops_fraction=float(costs[k - 1]),
        )
        for k, values_NL in enumerate(values, start=1)
    )


def rmse(values_NL: Array, y: Array) -> float:
    """Root mean squared difference, over samples and outputs."""
    return float(np.sqrt(((values_NL.astype(np.float64) - y) ** 2).mean()))


def r2(values_NL: Array, y: Array) -> float:
    """Mean over outputs of 1 - squared error over variance; an output whose labels are all equal counts 1 or 0."""
    return float(r2_score(y, values_NL.astype(np.float64)))


def scores(logits_NL: Array, y: Array) -> Scores:
    """How far softmax(logits) can be believed."""
    return Scores(
        nll=negative_log_likelihood(logits_NL, y), ece=calibration_error(logits_NL, y), brier=brier(logits_NL, y)
    )


def log_softmax(logits_NL: Array) -> Array:
    """In fp64, shifted by the maximum, so that nothing overflows."""
    shifted_NL = logits_NL.astype(np.float64) - logits_NL.max(axis=1, keepdims=True)
    log_probabilities: Array = shifted_NL - np.log(np.exp(shifted_NL).sum(axis=1, keepdims=True))
    return log_probabilities


def negative_log_likelihood(logits_NL: Array, y: Array) -> float:
    """Mean over samples, in nats."""
    return float(-log_softmax(logits_NL)[np.arange(len(y)), y].mean())


def calibration_error(logits_NL: Array, y: Array) -> float:
    """Expected calibration error: mean gap of confidence and accuracy over bins, weighted by their samples."""
    confidence = np.exp(log_softmax(logits_NL).max(axis=1))
    correct = (logits_NL.argmax(axis=1) == y).astype(np.float64)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=confidence - correct, minlength=BINS)
    return float(min(1.0, np.abs(gaps).sum() / len(y)))


def brier(logits_NL: Array, y: Array) -> float:
    """Mean over samples of the squared distance of the probabilities from the label's one-hot vector."""
    distance_NL = np.exp(log_softmax(logits_NL))
    distance_NL[np.arange(len(y)), y] -= 1
    return float((distance_NL**2).sum(axis=1).mean())
