"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) from the binary archives, in which no pickle has to be loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.archive import Archive, entries
from training.data.arrays import Data, Split, stratified
from training.determinism import derive_seed
from training.errors import BadData

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
VALIDATION_SHARE = 0.1
"""Of the official training images, stratified, set apart for choices: 5,000 of 50,000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Where one of the two data sets keeps its records: some label bytes, then the red, green and blue plane."""

    archive: Archive
    folder: str
    train: tuple[str, ...]
    test: str
    names: str
    """Class names, one a line."""
    classes: int
    label_bytes: int
    """The last of them is the (fine) label."""


CIFAR10 = Variant(
    archive=Archive(
        "cifar-10-binary.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "md5:c32a1d4ab5d03f1284b67883e8d87530",
    ),
    folder="cifar-10-batches-bin",
    train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    test="test_batch.bin",
    names="batches.meta.txt",
    classes=10,
    label_bytes=1,
)
CIFAR100 = Variant(
    archive=Archive(
        "cifar-100-binary.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "md5:03b5dce01913d631647c71ecec9e9cb8",
    ),
    folder="cifar-100-binary",
    train=("train.bin",),
    test="test.bin",
    names="fine_label_names.txt",
    classes=100,
    label_bytes=2,
)


def load(variant: Variant, path: Path, seed: int) -> Data:
    """Raw pixels (N, 3, 32, 32) uint8 of the archive at `path`.

    The test part is the official one; the validation part is drawn from the training images by `seed`.

    Raises:
        BadData: the archive is damaged, or lacks one of its files, or a file is not whole records.
    """
    wanted = {f"{variant.folder}/{name}" for name in (*variant.train, variant.test, variant.names)}
    files = {name.rpartition("/")[2]: content for name, content in entries(path, wanted.__contains__)}
    missing = sorted(name for name in (*variant.train, variant.test, variant.names) if name not in files)
    if missing:
        raise BadData(f"{path} lacks {', '.join(missing)} in {variant.folder}: is it {variant.archive.file}?")
    names = tuple(line.strip() for line in files[variant.names].decode().splitlines() if line.strip())
    if len(names) != variant.classes:
        raise BadData(f"{path}: {variant.names} names {len(names)} classes instead of {variant.classes}.")
    parts = [_records(variant, path, name, files[name]) for name in variant.train]
    x, y = np.concatenate([part.x for part in parts]), np.concatenate([part.y for part in parts])
    held = stratified(y, VALIDATION_SHARE, derive_seed(seed, "cifar", "validation"))
    return Data(
        train=Split(x[~held], y[~held]),
        validation=Split(x[held], y[held]),
        test=_records(variant, path, variant.test, files[variant.test]),
        classes=names,
    )


def _records(variant: Variant, path: Path, name: str, content: bytes) -> Split:
    length = variant.label_bytes + PIXELS
    if not content or len(content) % length:
        raise BadData(f"{path}: {name} has {len(content)} bytes, which is not a number of records of {length}.")
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, length)
    x = records[:, variant.label_bytes :].reshape(-1, *SHAPE)
    return Split(np.ascontiguousarray(x), records[:, variant.label_bytes - 1].astype(np.int64))
