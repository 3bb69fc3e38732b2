"""Ellipsoid (section 5.1): two classes, split by ``x^T A x`` for a random positive semidefinite A in 32 dimensions."""

from __future__ import annotations

import numpy as np

from training.data.arrays import Data, Split
from training.determinism import derive_seed

DIMENSIONS = 32
SAMPLES = {"train": 24000, "validation": 2000, "test": 10000}


def load(seed: int) -> Data:
    """Standard normal points, (N, 32) float32, labelled by whether ``x^T A x`` is above its median.

    The paper gives neither the distribution of the points, nor the threshold, nor the sizes: those are ours.
    """
    random = np.random.default_rng(derive_seed(seed, "ellipsoid"))
    root = random.normal(size=(DIMENSIONS, DIMENSIONS))
    x = random.normal(size=(sum(SAMPLES.values()), DIMENSIONS)).astype(np.float32)
    form = ((x @ root) ** 2).sum(axis=1)  # A = root root^T
    y = (form > np.median(form)).astype(np.int64)
    ends = np.cumsum(list(SAMPLES.values()))[:-1]
    train, validation, test = map(Split, np.split(x, ends), np.split(y, ends))
    return Data(train=train, validation=validation, test=test, classes=("inside", "outside"))
