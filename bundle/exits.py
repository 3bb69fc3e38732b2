"""What an exit rule means: which samples may leave after a prefix, and after how many members each of them does.

Whoever runs a bundle with a rule must decide with these functions: the rule's guarantee was found for exactly them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.floating[Any]]


def confidence(logits: Logits, temperature: float) -> npt.NDArray[np.float64]:
    """The calibrated probability of each sample's answer, (samples,): the maximum of softmax(logits / temperature).

    In fp64, so that it does not depend on how the samples were batched by more than the logits do.

    Args:
        logits: a prefix's answer, (samples, classes).
        temperature: that prefix's `temperature` in the manifest.
    """
    shifted = (logits.astype(np.float64) - logits.max(axis=1, keepdims=True)) / temperature
    certain: npt.NDArray[np.float64] = 1 / np.exp(shifted).sum(axis=1)
    return certain


def may_leave(logits: Logits, temperature: float, threshold: float | None) -> npt.NDArray[np.bool_]:
    """Whether each sample takes this prefix's answer, (samples,): its confidence is at least `threshold`.

    Args:
        logits: the answer of a prefix that is not the whole ensemble, (samples, classes).
        temperature: that prefix's `temperature` in the manifest.
        threshold: that prefix's entry in the rule's `thresholds`; None: nobody leaves.
    """
    if threshold is None:
        return np.zeros(len(logits), np.bool_)
    certain: npt.NDArray[np.bool_] = confidence(logits, temperature) >= threshold
    return certain


def members_used(
    prefixes: Sequence[Logits], temperatures: Sequence[float], thresholds: Sequence[float | None]
) -> npt.NDArray[np.intp]:
    """After how many members each sample leaves under a rule, (samples,): the first prefix that lets it, or all.

    Args:
        prefixes: the answer after each member, as :func:`bundle.reference.running_average` yields them.
        temperatures: `temperature` of each prefix.
        thresholds: `thresholds` of the rule, one for each prefix but the last.
    """
    used = np.full(len(prefixes[0]), len(prefixes), np.intp)
    earlier = reversed(list(enumerate(zip(prefixes[:-1], temperatures[:-1], thresholds, strict=True), start=1)))
    for k, (logits, temperature, threshold) in earlier:
        used[may_leave(logits, temperature, threshold)] = k
    return used
