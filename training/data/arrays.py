"""The small dataclasses in which every data set arrives, checked when they are made."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from bundle.record import Task
from training.errors import BadData

INPUT_DTYPES = ("uint8", "float32")


def native(name: str, array: object) -> npt.NDArray[Any]:
    """An array in the machine's byte order and laid out row by row, which is what torch takes; copied only if need be.

    Raises:
        BadData: it is no array, such as a list or a tensor of torch.
    """
    if not isinstance(array, np.ndarray):
        raise BadData(f"{name} is a {type(array).__name__}, but must be an array of numpy.")
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


@dataclass(frozen=True, slots=True)
class Split:
    """Raw samples x (N, *shape), uint8 or float32, and labels y.

    Labels are classes (N,), integers from 0; or for a regression values (N, L), floats.

    Raises:
        BadData: one of them is no array.
    """

    x: npt.NDArray[Any]
    y: npt.NDArray[Any]

    def __post_init__(self) -> None:
        for name in ("x", "y"):
            object.__setattr__(self, name, native(name, getattr(self, name)))

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A data set in three parts that are kept apart.

    Members are trained on `train`, every choice (acceptance, tuning) is made on `validation`, and `test` is
    only measured.

    Raises:
        BadData: a part is empty, shapes disagree, a value is not finite, or a label is out of range.
    """

    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    """Names of the classes, in the order of their labels; of a regression, of its outputs."""
    task: Task = "classification"
    sequences: bool = False
    """Whether samples (T, F) are T steps in time of F features, each with a scale of its own; otherwise an image."""

    def __post_init__(self) -> None:
        if self.task not in get_args(Task):
            raise BadData(f"task={self.task!r} is none of: {', '.join(get_args(Task))}.")
        if not all(isinstance(name, str) for name in self.classes):
            raise BadData(f"classes must be names, in quotes, not {list(self.classes)}.")
        object.__setattr__(self, "classes", tuple(map(str, self.classes)))  # of a list, or of numpy's strings
        fewest, words = (2, "two") if self.task == "classification" else (1, "one")
        if len(self.classes) < fewest or len(set(self.classes)) != len(self.classes):
            raise BadData(f"classes must be {words} or more different names, not {list(self.classes)}.")
        for name, split in self.splits().items():
            check_samples(name, split)
            (check_classes if self.task == "classification" else check_values)(name, split, len(self.classes))
        if len(self.train) < 2:
            raise BadData("train has one sample, but must have two or more: of one there are no batch statistics.")
        if self.task == "regression" and len(self.test) < 2:
            raise BadData("test has one sample, but must have two or more: of one there is no R².")
        shapes = {name: (split.x.shape[1:], split.x.dtype.name) for name, split in self.splits().items()}
        if len(set(shapes.values())) != 1:
            raise BadData(f"The parts do not have samples of one shape and dtype: {shapes}.")
        if self.sequences and len(self.input_shape) != 2:
            raise BadData(f"Sequences must be samples (steps, features), not of shape {list(self.input_shape)}.")

    def splits(self) -> dict[str, Split]:
        """The three parts by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.train.x.shape[1:])

    def sha256(self) -> str:
        """Hash of every array with its shape and dtype, and of the class names."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for name, split in self.splits().items():
            y = split.y.astype(np.int64 if self.task == "classification" else np.float64)
            for array in (split.x, y):
                digest.update(f"{name}{array.shape}{array.dtype.str}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def check_samples(name: str, split: Split) -> None:
    """Raise BadData, in one sentence, when one part's samples cannot be trained or measured on."""
    x, y = split.x, split.y
    if x.dtype.name not in INPUT_DTYPES:
        raise BadData(f"{name} x has dtype {x.dtype}, but must be one of {', '.join(INPUT_DTYPES)}.")
    if x.ndim < 2 or 0 in x.shape:
        raise BadData(f"{name} x has shape {x.shape}, but must be (samples, ...) and not empty.")
    if len(x) != len(y):
        raise BadData(f"{name} has {len(x)} samples x but {len(y)} labels y.")
    if not np.isfinite(x).all():
        raise BadData(f"{name} x holds NaN or infinity in {int((~np.isfinite(x)).sum())} places.")


def check_classes(name: str, split: Split, classes: int) -> None:
    """Raise BadData when labels are not integers from 0 below `classes`."""
    y = split.y
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise BadData(f"{name} y has shape {y.shape} and dtype {y.dtype}, but must be one integer label a sample.")
    if y.min() < 0 or y.max() >= classes:
        raise BadData(f"{name} y holds labels from {y.min()} to {y.max()}, but there are {classes} classes (from 0).")


def check_values(name: str, split: Split, outputs: int) -> None:
    """Raise BadData when labels are not finite values (N, outputs)."""
    y = split.y
    if y.shape != (len(split.x), outputs) or y.dtype.kind != "f":
        raise BadData(
            f"{name} y has shape {y.shape} and dtype {y.dtype}, "
            f"but must be floats of shape ({len(split.x)}, {outputs})."
        )
    if not np.isfinite(y).all():
        raise BadData(f"{name} y holds NaN or infinity in {int((~np.isfinite(y)).sum())} places.")


def drawn(samples: int, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """A mask of about `share` of the samples, drawn by `seed`."""
    mask = np.zeros(samples, dtype=np.bool_)
    mask[np.random.default_rng(seed).permutation(samples)[: round(share * samples)]] = True
    return mask


def stratified(y: npt.NDArray[np.integer[Any]], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """A mask of about `share` of the samples, the same share of every label, drawn by `seed`."""
    random = np.random.default_rng(seed)
    mask = np.zeros(len(y), dtype=np.bool_)
    for label in np.unique(y):
        members = random.permutation(np.flatnonzero(y == label))
        mask[members[: round(share * len(members))]] = True
    return mask
