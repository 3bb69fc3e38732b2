"""Handwritten digits as scikit-learn bundles them: 1797 scans of 8x8 pixels with values 0 to 16; no download."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

from training.data.arrays import Data, Split, stratified
from training.determinism import derive_seed

SHIFTS = (0, 1, -1)
"""Pixels to the right by which each training scan is repeated."""
TEST_SHARE = 0.3
VALIDATION_SHARE = 0.2
"""Of what the test part leaves."""


def load(seed: int) -> Data:
    """Raw pixels, (N, 8, 8) uint8, in stratified parts drawn by `seed`: 56 % train, 14 % validation, 30 % test.

    A thousand scans are few, so each training scan comes three times: as it is, and one pixel to either side. The
    shifted ones are samples of their own, with their own teacher logits and weights: a residual never
    compares two views of a scan.
    """
    digits = load_digits()
    x, y = digits.images.astype(np.uint8), digits.target.astype(np.int64)
    test = stratified(y, TEST_SHARE, derive_seed(seed, "digits", "test"))
    rest_x, rest_y = x[~test], y[~test]
    validation = stratified(rest_y, VALIDATION_SHARE, derive_seed(seed, "digits", "validation"))
    train_x, train_y = rest_x[~validation], rest_y[~validation]
    return Data(
        train=Split(np.concatenate([shifted(train_x, by) for by in SHIFTS]), np.tile(train_y, len(SHIFTS))),
        validation=Split(rest_x[validation], rest_y[validation]),
        test=Split(x[test], y[test]),
        classes=tuple(str(digit) for digit in range(10)),
    )


def shifted(x: npt.NDArray[np.uint8], by: int) -> npt.NDArray[np.uint8]:
    """Scans (N, H, W) moved `by` pixels to the right, empty columns coming in."""
    width = x.shape[2]
    margin = abs(by)
    padded = np.pad(x, ((0, 0), (0, 0), (margin, margin)))
    return padded[:, :, margin - by : margin - by + width]
