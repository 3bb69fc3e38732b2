"""Early exits with a guarantee: Learn-then-Test (Angelopoulos et al., arXiv 2110.01052) over one threshold.

The risk of a rule is the share of samples whose answer under it is not that of the whole ensemble. Fixed-sequence
testing goes over a grid of thresholds, from one that hardly anybody reaches towards ever lower ones, and tests at each
whether the risk could be above epsilon; it stops at the first where it could, and takes the one before. With
probability 1 - delta over the draw of the samples the rule's risk is at most epsilon: for one epsilon at a time,
whatever the ensemble, for new samples from where these came.

That needs samples that nothing else was fitted to, so the validation part is halved: temperatures on one half,
thresholds on the other. What remains of use before is that validation losses chose between candidate members; the
guarantee does not account for that, and the measurement on the held-out part beside each rule shows what came of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

from bundle import ExitRule
from bundle.exits import members_used
from training.determinism import derive_seed

Array = npt.NDArray[Any]

GRID = np.round(1 - np.geomspace(1e-6, 0.95, 160), 8)
"""Thresholds in the order in which they are tested; fine near 1, where confident networks differ."""


def halves(samples: int, seed: int) -> tuple[Array, Array]:
    """Indices of the samples that temperatures are fitted on, and of those that thresholds are, drawn by `seed`."""
    order = np.random.default_rng(derive_seed(seed, "calibration", "halves")).permutation(samples)
    return np.sort(order[: samples // 2]), np.sort(order[samples // 2 :])


def find_threshold(
    prefixes: Sequence[Array], temperatures: Sequence[float], risk: float, confidence: float
) -> float | None:
    """The lowest threshold, one for all prefixes, that is certified; None: not even the first of the grid is.

    Args:
        prefixes: logits (N, L) after each member, on samples that nothing was fitted to.
        temperatures: of each prefix.
        risk: epsilon.
        confidence: 1 - delta.
    """
    found = None
    for threshold in GRID.tolist():
        differing = disagreements(prefixes, temperatures, threshold)
        if p_value(int(differing.sum()), len(differing), risk) > 1 - confidence:
            break
        found = threshold
    return found


def p_value(differing: int, samples: int, risk: float) -> float:
    """Of the hypothesis that the true risk is above `risk`: the exact binomial tail, P(Bin(samples, risk) <= seen)."""
    return float(bdtr(differing, samples, risk))


def disagreements(prefixes: Sequence[Array], temperatures: Sequence[float], threshold: float) -> Array:
    """Whether each sample's answer under the rule is not that of the last prefix, (N,)."""
    answers = np.stack([logits.argmax(axis=1) for logits in prefixes])
    used = members_used(prefixes, temperatures, [threshold] * (len(prefixes) - 1))
    differing: Array = answers[used - 1, np.arange(len(used))] != answers[-1]
    return differing


def samples_needed(risk: float, confidence: float) -> int:
    """The fewest samples on which a rule without a single disagreement is certified."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - risk))


def measure_rule(
    prefixes: Sequence[Array],
    temperatures: Sequence[float],
    threshold: float,
    y: Array,
    costs: Sequence[float],
    guarantee: tuple[float, float],
) -> ExitRule:
    """The rule with what it does on the held-out part.

    Args:
        prefixes: logits (N, L) after each member there.
        temperatures: of each prefix.
        threshold: the certified one.
        y: labels (N,).
        costs: `flops_fraction` of each prefix.
        guarantee: epsilon and 1 - delta.
    """
    risk, confidence = guarantee
    thresholds = (threshold,) * (len(prefixes) - 1)
    used = members_used(prefixes, temperatures, thresholds)
    answers = np.stack([logits.argmax(axis=1) for logits in prefixes])[used - 1, np.arange(len(used))]
    return ExitRule(
        risk=risk,
        confidence=confidence,
        thresholds=thresholds,
        method="learn_then_test",
        flops_fraction=float(np.asarray(costs)[used - 1].mean()),
        accuracy=float((answers == y).mean()),
        disagreement=float((answers != prefixes[-1].argmax(axis=1)).mean()),
    )
