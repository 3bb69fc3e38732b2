"""Handwritten digits as scikit-learn bundles them: 1797 scans of 8x8 pixels with values 0 to 16; no download."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from training.data.arrays import Data, Split, stratified
from training.determinism import derive_seed

TEST_SHARE = 0.3
VALIDATION_SHARE = 0.2
"""Of what the test part leaves."""


def load(seed: int) -> Data:
    """Raw pixels, (N, 8, 8) uint8, in stratified parts drawn by `seed`: 56 % train, 14 % validation, 30 % test."""
    digits = load_digits()
    x, y = digits.images.astype(np.uint8), digits.target.astype(np.int64)
    test = stratified(y, TEST_SHARE, derive_seed(seed, "digits", "test"))
    rest_x, rest_y = x[~test], y[~test]
    validation = stratified(rest_y, VALIDATION_SHARE, derive_seed(seed, "digits", "validation"))
    return Data(
        train=Split(rest_x[~validation], rest_y[~validation]),
        validation=Split(rest_x[validation], rest_y[validation]),
        test=Split(x[test], y[test]),
        classes=tuple(str(digit) for digit in range(10)),
    )
