"""DSA-19: Daily and Sports Activities (Barshan and Altun, 2010), windows of body-worn sensors, split by person."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from training.data.archive import Archive, entries
from training.data.arrays import Data, Split
from training.determinism import derive_seed
from training.errors import BadData

ARCHIVE = Archive(
    "daily+and+sports+activities.zip",
    "https://archive.ics.uci.edu/static/public/256/daily+and+sports+activities.zip",
    "",  # the publisher names none
)
STEPS, CHANNELS = 125, 45
"""Five seconds at 25 Hz; accelerometer, gyroscope and magnetometer (x, y, z) on five parts of the body."""
SUBJECTS = 8
PARTS = {"train": 4, "validation": 2, "test": 2}
"""Subjects in each part."""
CLASSES = (
    "sitting",
    "standing",
    "lying on back",
    "lying on right side",
    "ascending stairs",
    "descending stairs",
    "standing in an elevator",
    "moving around in an elevator",
    "walking in a parking lot",
    "walking on a flat treadmill",
    "walking on an inclined treadmill",
    "running on a treadmill",
    "exercising on a stepper",
    "exercising on a cross trainer",
    "cycling in horizontal position",
    "cycling in vertical position",
    "rowing",
    "jumping",
    "playing basketball",
)
UNITS, SENSORS, AXES = 5, 3, 3
"""How the 45 channels lie."""
COPIES = 4
"""How often each training window comes, see :func:`varied`."""
TURN = np.radians(30)
"""Standard deviation of the angles by which units are turned, in radians."""
SPREAD = 1.0
"""Of the displacements, in standard deviations of a channel."""
SEGMENT = re.compile(r"(?:^|/)a(\d\d)/p(\d)/s(\d\d)\.txt$")
"""Activity from 1, subject from 1, segment from 1."""


def load(path: Path, seed: int) -> Data:
    """Raw windows (N, 125, 45) float32 of the archive at `path`.

    No two parts share a person: segments of one person follow each other in time, so that a random split would
    leak. There is no official split; `seed` draws who is in which part, so several seeds show the spread.

    Raises:
        BadData: the archive is damaged, lacks a person, or holds a segment that is no 125 x 45 numbers.
    """
    x, y, subject = _segments(path)
    absent = sorted(set(range(1, SUBJECTS + 1)) - set(subject.tolist()))
    if absent:
        raise BadData(f"{path} has no segments data/aXX/pY/sZZ.txt of subject {', '.join(map(str, absent))}.")
    ends = np.cumsum(list(PARTS.values()))[:-1]
    groups = np.split(permuted_subjects(seed), ends)
    masks = dict(zip(PARTS, [np.isin(subject, group) for group in groups], strict=True))
    train, validation, test = (Split(x[masks[name]], y[masks[name]]) for name in ("train", "validation", "test"))
    return Data(train=varied(train, seed), validation=validation, test=test, classes=CLASSES, sequences=True)


def varied(train: Split, seed: int) -> Split:
    """Each window :data:`COPIES` times: as it is, then with units turned and channels displaced.

    Units sit a little differently on everybody, and people head in different directions. The first turns the axes of
    a unit, both shift the means of channels, and four people are too few to learn that neither says anything of
    the activity. The varied windows are samples of their own, with their own teacher logits and weights.
    """
    random = np.random.default_rng(derive_seed(seed, "daily sports", "variations"))
    deviation = train.x.std(axis=(0, 1), dtype=np.float64)
    copies = [train.x]
    for _ in range(COPIES - 1):
        shift = random.normal(scale=SPREAD * deviation, size=(len(train), 1, CHANNELS))
        copies.append(turned(train.x, random) + shift.astype(np.float32))
    return Split(np.concatenate(copies), np.tile(train.y, COPIES))


def turned(x: npt.NDArray[np.float32], random: np.random.Generator) -> npt.NDArray[np.float32]:
    """Windows (N, 125, 45) as other positions of the units would have measured them.

    Each unit of each window has one rotation, about an axis of any direction, by an angle that is normal with
    deviation :data:`TURN`; its accelerometer, gyroscope and magnetometer turn together.
    """
    count = len(x) * UNITS
    axes = random.normal(size=(count, AXES))
    angles = random.normal(scale=TURN, size=(count, 1))
    turns = Rotation.from_rotvec(angles * axes / np.linalg.norm(axes, axis=1, keepdims=True)).as_matrix()
    vectors = x.reshape(len(x), STEPS, UNITS, SENSORS, AXES).transpose(0, 2, 1, 3, 4).reshape(count, -1, AXES)
    measured = vectors @ turns.astype(np.float32).transpose(0, 2, 1)
    result: npt.NDArray[np.float32] = measured.reshape(len(x), UNITS, STEPS, -1).transpose(0, 2, 1, 3).reshape(x.shape)
    return result


def permuted_subjects(seed: int) -> npt.NDArray[np.int64]:
    """The eight subjects in the order of `seed`: four to train on, two to choose on, two to test on."""
    return np.random.default_rng(derive_seed(seed, "daily sports", "subjects")).permutation(SUBJECTS) + 1


def _segments(path: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    found: dict[tuple[int, int, int], npt.NDArray[np.float32]] = {}
    for name, content in entries(path, lambda name: SEGMENT.search(name) is not None):
        activity, subject, segment = (int(number) for number in SEGMENT.findall(name)[0])
        if not 1 <= activity <= len(CLASSES) or not 1 <= subject <= SUBJECTS:
            raise BadData(f"{path}: {name} is of an activity or a subject that the data set does not have.")
        found[activity, subject, segment] = _window(path, name, content)
    if not found:
        raise BadData(f"{path} holds no segments data/aXX/pY/sZZ.txt: is it {ARCHIVE.file}?")
    keys = sorted(found)  # an order that does not depend on the archive's
    index = np.array(keys, dtype=np.int64)
    return np.stack([found[key] for key in keys]), index[:, 0] - 1, index[:, 1]


def _window(path: Path, name: str, content: bytes) -> npt.NDArray[np.float32]:
    try:
        window = np.loadtxt(io.BytesIO(content), delimiter=",", dtype=np.float32, ndmin=2)
    except ValueError as error:
        raise BadData(f"{path}: {name} is not a table of numbers ({error}).") from error
    if window.shape != (STEPS, CHANNELS):
        raise BadData(f"{path}: {name} has shape {window.shape}, but must be ({STEPS}, {CHANNELS}).")
    if not np.isfinite(window).all():  # here, because displaced copies would spread it
        raise BadData(f"{path}: {name} holds NaN or infinity.")
    return window
