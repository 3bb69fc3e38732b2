"""Cube (section 5.1): four classes by the nearest of 16 random vertices of the cube {-1, 1}^32."""

from __future__ import annotations

import numpy as np

from training.data.arrays import Data, Split
from training.determinism import derive_seed

DIMENSIONS, VERTICES, CLASSES = 32, 16, 4
GRID = (4, 8)
SPREAD = 1.5
"""Standard deviation of a point around its vertex, in each coordinate; vertices are 2 apart there."""
SAMPLES = {"train": 12000, "validation": 2000, "test": 10000}


def load(seed: int) -> Data:
    """Points around random vertices, (N, 4, 8) float32, labelled by the class of the nearest one, four vertices each.

    The 32 coordinates are laid out as a grid so that a convolutional network can read them, as in the paper.
    The distribution of the points and the sizes are ours: the paper gives neither.
    """
    random = np.random.default_rng(derive_seed(seed, "cube"))
    vertices = random.choice([-1.0, 1.0], size=(VERTICES, DIMENSIONS))
    classes = random.permutation(np.arange(VERTICES) % CLASSES)
    origins = vertices[random.integers(VERTICES, size=sum(SAMPLES.values()))]
    x = (origins + SPREAD * random.normal(size=origins.shape)).astype(np.float32)
    # All vertices are equally far from the origin, so the nearest has the largest inner product.
    y = classes[(x @ vertices.T).argmax(axis=1)]
    ends = np.cumsum(list(SAMPLES.values()))[:-1]
    train, validation, test = map(Split, np.split(x.reshape(-1, *GRID), ends), np.split(y, ends))
    return Data(
        train=train, validation=validation, test=test, classes=tuple(f"class {label}" for label in range(CLASSES))
    )
