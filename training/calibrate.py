"""How far a prefix's confidence can be believed: its temperature, and what more members are worth at each confidence.

Shape suffixes: N samples, L labels. All of it is fitted on the validation part, on logits as they are served.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from sklearn.isotonic import isotonic_regression

from bundle import Outlook
from bundle.exits import confidence
from training.evaluate import log_softmax

Array = npt.NDArray[Any]

LOWEST, HIGHEST = 0.05, 20.0
"""Temperatures that are considered."""
STARTS = 41
"""Temperatures, evenly in their logarithm, of which the best is refined: the penalised loss may have two minima."""
DOUBT = 0.5
"""Standard deviation of the logarithm of a temperature before any sample is seen: from about 1/3 to 3."""

BAND_SAMPLES = 30
"""Smallest number of samples that a band of an outlook is made for."""
BANDS = 10
"""Largest number of bands."""
PSEUDO_SAMPLES = 20
"""How many samples the calibrated confidence counts for in the estimate of an accuracy."""


def fit_temperature(logits_NL: Array, y: Array) -> float:
    """The temperature T of ``softmax(logits / T)`` with the largest posterior.

    Minimises the summed negative log-likelihood of the labels plus ``(ln T)^2 / (2 DOUBT^2)``, a normal prior on the
    logarithm. The likelihood alone goes to T = 0 where every answer is right, and anywhere on a handful of samples;
    with the prior few samples, or samples that say little, leave T near 1, and many outweigh it.

    Args:
        logits_NL: a prefix's answers.
        y: labels (N,).
    """

    def loss(log_temperature: float) -> float:
        likelihood_N = log_softmax(logits_NL / np.exp(log_temperature))[np.arange(len(y)), y]
        return float(log_temperature**2 / (2 * DOUBT**2) - likelihood_N.sum())

    grid = np.linspace(np.log(LOWEST), np.log(HIGHEST), STARTS)
    best = int(np.argmin([loss(point) for point in grid]))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, STARTS - 1)]
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def outlook(prefixes: Sequence[Array], temperatures: Sequence[float], y: Array) -> tuple[Outlook, ...]:
    """What more members are worth to a sample, by its calibrated confidence after the first of `prefixes`.

    Bands of confidence hold nearly equal numbers of samples. In a band of n samples the accuracy of a prefix is
    estimated as ``(right + PSEUDO_SAMPLES * mean calibrated confidence) / (n + PSEUDO_SAMPLES)``: what that prefix
    itself expects, corrected by what was seen. Of the estimates of successive prefixes the nearest sequence that never
    falls is taken (isotonic regression), so that differences are gains.

    Args:
        prefixes: logits (N, L) of this prefix, of the next one, ... of the whole ensemble.
        temperatures: of the same prefixes.
        y: labels (N,).
    """
    confidences = [confidence(logits, t) for logits, t in zip(prefixes, temperatures, strict=True)]
    right = [logits.argmax(axis=1) == y for logits in prefixes]
    edges = band_edges(confidences[0])
    band_N = np.searchsorted(edges, confidences[0])
    bands = list[Outlook]()
    for band, edge in enumerate(edges):
        inside = band_N == band
        seen, expected = ([float(value[inside].mean()) for value in values] for values in (right, confidences))
        weight = inside.sum() / (inside.sum() + PSEUDO_SAMPLES)
        accuracy = isotonic_regression(weight * np.array(seen) + (1 - weight) * np.array(expected), y_min=0, y_max=1)
        bands.append(Outlook(up_to=float(edge), share=float(inside.mean()), accuracy=tuple(accuracy.tolist())))
    return tuple(bands)


def band_edges(confidence_N: Array) -> Array:
    """Upper edges, inclusive and ascending to 1, of bands that are not empty; fewer where confidences are equal."""
    bands = min(max(len(confidence_N) // BAND_SAMPLES, 1), BANDS)
    inner = np.quantile(confidence_N, np.arange(1, bands) / bands, method="inverted_cdf")
    # The last band reaches from the last inner edge to 1, so an edge that nothing exceeds would leave it empty.
    edges: Array = np.append(np.unique(inner[inner < confidence_N.max()]), 1.0)
    return edges
