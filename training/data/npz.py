"""Your own data: one ``.npz`` archive with arrays of fixed names."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bundle.record import Task
from training.data.arrays import Data, Split, drawn, native, stratified
from training.determinism import derive_seed
from training.errors import BadData
from training.targets import Logits

REQUIRED = ("train_x", "train_y", "test_x", "test_y")
VALIDATION = ("val_x", "val_y")
"""Without these, VALIDATION_SHARE of the training samples take their place."""
LOGITS = {"train": "train_logits", "val": "val_logits", "test": "test_logits"}
"""Of the teacher, for each part that the archive holds."""
VALIDATION_SHARE = 0.2
"""Of the training samples, stratified, set apart for choices."""

Arrays = dict[str, npt.NDArray[Any]]


def load(
    path: Path, seed: int, *, sequences: bool = False, task: Task | Literal["auto"] = "auto"
) -> tuple[Data, Logits | None]:
    """Read an archive: samples (N, ...) uint8 or float32, labels, and perhaps a teacher's logits (N, L).

    Labels are classes (N,), integers from 0, or values (N,) or (N, L) of a regression; by default floats are values,
    integers classes. The number of classes is that of the logits, or one more than the largest label. With
    `sequences` the samples are (T, F): see :class:`training.data.Data`.

    Samples to choose on come as `val_x` and `val_y`, or are drawn by `seed` from those for training: bring them where
    a random draw would leak, such as several windows of one person.

    Raises:
        BadData: no such file, not an archive, a missing or superfluous array, or arrays that do not fit.
    """
    arrays = _read(path)
    if task == "auto":
        task = "regression" if arrays["train_y"].dtype.kind == "f" else "classification"
    splits = {name: _split(path, arrays, name, task) for name in LOGITS if f"{name}_x" in arrays}
    logits = {name: arrays[array] for name, array in LOGITS.items() if array in arrays}
    for name, array in logits.items():
        if array.ndim != 2:
            raise BadData(f"{path}: {LOGITS[name]} has shape {array.shape}, but must be (samples, classes or outputs).")
    if "val" not in splits:
        splits["train"], splits["val"], logits = _set_apart(path, splits["train"], logits, task, seed)
    data = Data(
        train=splits["train"],
        validation=splits["val"],
        test=splits["test"],
        classes=_outputs(splits["train"]) if task == "regression" else _classes(splits, logits),
        sequences=sequences,
        task=task,
    )
    if not logits:
        return data, None
    return data, Logits(train=logits["train"], validation=logits["val"], test=logits["test"])


def _split(path: Path, arrays: Arrays, name: str, task: Task) -> Split:
    x, y = arrays[f"{name}_x"], arrays[f"{name}_y"]
    if task == "regression":
        _check_values(path, name, y)
        y = y.astype(np.float64).reshape(len(y), -1)
    elif y.ndim != 1 or y.dtype.kind not in "iu" or len(y) == 0:
        raise BadData(
            f"{path}: {name}_y has shape {y.shape} and dtype {y.dtype}, but must be labels; "
            "floats are values of a regression, --set task=regression."
        )
    elif y.min() < 0:
        raise BadData(f"{path}: {name}_y holds the label {y.min()}, but labels count from 0.")
    if len(x) != len(y):
        raise BadData(f"{path}: {name}_x has {len(x)} samples but {name}_y has {len(y)} labels.")
    return Split(x, y)


def _check_values(path: Path, name: str, y: npt.NDArray[Any]) -> None:
    if y.ndim not in {1, 2} or y.dtype.kind not in "iuf" or 0 in y.shape:
        raise BadData(
            f"{path}: {name}_y has shape {y.shape} and dtype {y.dtype}, but must be values (N,) or (N, outputs)."
        )


def _outputs(train: Split) -> tuple[str, ...]:
    return tuple(f"output {index}" for index in range(train.y.shape[1]))


def _classes(splits: dict[str, Split], logits: Arrays) -> tuple[str, ...]:
    labels = logits["train"].shape[-1] if logits else 1 + max(int(split.y.max()) for split in splits.values())
    return tuple(f"class {label}" for label in range(labels))


def _set_apart(path: Path, train: Split, logits: Arrays, task: Task, seed: int) -> tuple[Split, Split, Arrays]:
    """Training and validation samples, and the logits with those for training parted in the same way."""
    own = derive_seed(seed, "npz", "validation")
    held = (
        drawn(len(train), VALIDATION_SHARE, own) if task == "regression" else stratified(train.y, VALIDATION_SHARE, own)
    )
    if not held.any():
        raise BadData(f"{path}: too few training samples ({len(train)}) to set some apart for validation.")
    if logits and len(logits["train"]) != len(train):
        raise BadData(f"{path}: train_logits has {len(logits['train'])} rows for {len(train)} samples.")
    parted = {**logits, "train": logits["train"][~held], "val": logits["train"][held]} if logits else {}
    return Split(train.x[~held], train.y[~held]), Split(train.x[held], train.y[held]), parted


def _read(path: Path) -> Arrays:
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, own_fid=False, allow_pickle=False) as archive:
            arrays = {name: native(name, archive[name]) for name in archive.files}
    except FileNotFoundError:
        raise BadData(f"There is no file {path}: name the archive with --set data=FILE.npz.") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise BadData(f"{path} cannot be read as an .npz archive of plain arrays: {error}.") from error
    missing = [name for name in REQUIRED if name not in arrays]
    if missing:
        raise BadData(f"{path} lacks {', '.join(missing)}; it holds {', '.join(sorted(arrays)) or 'nothing'}.")
    known = (*REQUIRED, *VALIDATION, *LOGITS.values())
    unknown = sorted(set(arrays) - set(known))
    if unknown:
        raise BadData(f"{path} holds {', '.join(unknown)}, which nothing reads; known: {', '.join(known)}.")
    if len([name for name in VALIDATION if name in arrays]) == 1:
        raise BadData(f"{path} holds half of the validation part: give both val_x and val_y.")
    wanted = {LOGITS[name] for name in LOGITS if f"{name}_x" in arrays}
    given = set(LOGITS.values()) & set(arrays)
    if given and given != wanted:
        raise BadData(
            f"{path} holds the teacher's logits for {', '.join(sorted(given))}: give exactly "
            f"{' and '.join(sorted(wanted, reverse=True))}, or none."
        )
    return arrays
