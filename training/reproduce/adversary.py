"""The worst that Definition 1 allows: residuals of +-1 with no negative edge, played against Theorem 1's bounds."""

from __future__ import annotations

import numpy as np


def play(samples: int, rounds: int, eta: float) -> float:
    """Largest ``|S| / T`` that residuals of +-1 can reach while every edge is >= 0.

    In each round the samples with the largest |S| move away from 0, as many as the rest can pay for; by symmetry
    samples with equal |S| are exchangeable, so only their number is kept.

    Args:
        samples: N.
        rounds: T.
        eta: step of Eqs. 4 and 5.
    """
    size = np.zeros(rounds + 2)
    size[0] = samples
    weight = np.sinh(eta * np.arange(rounds + 2))
    for _ in range(rounds):
        budget = (size * weight).sum() / 2
        moved = np.zeros_like(size)
        for height in range(rounds, 0, -1):
            away = min(size[height], np.floor(budget / weight[height] + 1e-9))
            budget -= away * weight[height]
            moved[height + 1] += away
            moved[height - 1] += size[height] - away
        moved[1] += size[0]
        size = moved
    return float(np.flatnonzero(size >= 1).max()) / rounds
