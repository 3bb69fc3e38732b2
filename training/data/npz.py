"""Your own data: one ``.npz`` archive with arrays of fixed names."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.data.arrays import Data, Split, stratified
from training.determinism import derive_seed
from training.errors import BadData
from training.targets import Logits

REQUIRED = ("train_x", "train_y", "test_x", "test_y")
OPTIONAL = ("train_logits", "test_logits")
VALIDATION_SHARE = 0.2
"""Of the training samples, stratified, set apart for choices."""

Arrays = dict[str, npt.NDArray[Any]]


def load(path: Path, seed: int, *, sequences: bool = False) -> tuple[Data, Logits | None]:
    """Read an archive: samples (N, ...) uint8 or float32, labels (N,) from 0, and perhaps a teacher's logits (N, L).

    With `sequences` the samples are (T, F): see :class:`training.data.Data`. The number of classes is that of the
    logits, or one more than the largest label.

    Raises:
        BadData: no such file, not an archive, a missing or superfluous array, or arrays that do not fit.
    """
    arrays = _read(path)
    train = Split(arrays["train_x"], arrays["train_y"])
    test = Split(arrays["test_x"], arrays["test_y"])
    for name, split in (("train", train), ("test", test)):
        if split.y.ndim != 1 or split.y.dtype.kind not in "iu" or len(split.y) == 0:
            raise BadData(f"{path}: {name}_y has shape {split.y.shape} and dtype {split.y.dtype}, but must be labels.")
        if split.y.min() < 0:
            raise BadData(f"{path}: {name}_y holds the label {split.y.min()}, but labels count from 0.")
        if len(split.x) != len(split.y):
            raise BadData(f"{path}: {name}_x has {len(split.x)} samples but {name}_y has {len(split.y)} labels.")
    logits = [arrays[name] for name in OPTIONAL if name in arrays]
    labels = logits[0].shape[-1] if logits else int(max(train.y.max(), test.y.max())) + 1
    held = stratified(train.y, VALIDATION_SHARE, derive_seed(seed, "npz", "validation"))
    if not held.any():
        raise BadData(f"{path}: too few training samples ({len(train)}) to set some apart for validation.")
    data = Data(
        train=Split(train.x[~held], train.y[~held]),
        validation=Split(train.x[held], train.y[held]),
        test=test,
        classes=tuple(f"class {label}" for label in range(labels)),
        sequences=sequences,
    )
    if not logits:
        return data, None
    train_logits = arrays["train_logits"]
    if len(train_logits) != len(train):
        raise BadData(f"{path}: train_logits has {len(train_logits)} rows for {len(train)} samples.")
    return data, Logits(train=train_logits[~held], validation=train_logits[held], test=arrays["test_logits"])


def _read(path: Path) -> Arrays:
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, own_fid=False, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise BadData(f"There is no file {path}: name the archive with --set data=FILE.npz.") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise BadData(f"{path} cannot be read as an .npz archive of plain arrays: {error}.") from error
    missing = [name for name in REQUIRED if name not in arrays]
    if missing:
        raise BadData(f"{path} lacks {', '.join(missing)}; it holds {', '.join(sorted(arrays)) or 'nothing'}.")
    unknown = sorted(set(arrays) - {*REQUIRED, *OPTIONAL})
    if unknown:
        raise BadData(
            f"{path} holds {', '.join(unknown)}, which nothing reads; known: {', '.join(REQUIRED + OPTIONAL)}."
        )
    if len([name for name in OPTIONAL if name in arrays]) == 1:
        raise BadData(f"{path} holds the teacher's logits for one part only: give both train_logits and test_logits.")
    return arrays
