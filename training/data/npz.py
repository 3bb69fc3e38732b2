"""Your own data: one ``.npz`` archive with arrays of fixed names."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bundle.record import Task
from training.data.arrays import Data, Split, drawn, stratified
from training.determinism import derive_seed
from training.errors import BadData
from training.targets import Logits

REQUIRED = ("train_x", "train_y", "test_x", "test_y")
OPTIONAL = ("train_logits", "test_logits")
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

    Raises:
        BadData: no such file, not an archive, a missing or superfluous array, or arrays that do not fit.
    """
    arrays = _read(path)
    if task == "auto":
        task = "regression" if arrays["train_y"].dtype.kind == "f" else "classification"
    train, test = (_split(path, arrays, name, task) for name in ("train", "test"))
    logits = [arrays[name] for name in OPTIONAL if name in arrays]
    names = _outputs(train) if task == "regression" else _classes(train, test, logits)
    held = _held_out(train, task, derive_seed(seed, "npz", "validation"))
    if not held.any():
        raise BadData(f"{path}: too few training samples ({len(train)}) to set some apart for validation.")
    data = Data(
        train=Split(train.x[~held], train.y[~held]),
        validation=Split(train.x[held], train.y[held]),
        test=test,
        classes=names,
        sequences=sequences,
        task=task,
    )
    if not logits:
        return data, None
    train_logits = arrays["train_logits"]
    if len(train_logits) != len(train):
        raise BadData(f"{path}: train_logits has {len(train_logits)} rows for {len(train)} samples.")
    return data, Logits(train=train_logits[~held], validation=train_logits[held], test=arrays["test_logits"])


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


def _classes(train: Split, test: Split, logits: list[npt.NDArray[Any]]) -> tuple[str, ...]:
    labels = logits[0].shape[-1] if logits else int(max(train.y.max(), test.y.max())) + 1
    return tuple(f"class {label}" for label in range(labels))


def _held_out(train: Split, task: Task, seed: int) -> npt.NDArray[np.bool_]:
    if task == "regression":
        return drawn(len(train), VALIDATION_SHARE, seed)
    return stratified(train.y, VALIDATION_SHARE, seed)


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
