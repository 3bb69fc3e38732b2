"""What the ensemble is distilled towards: the teacher's logits on every part of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bundle import Teacher
from training import flops, ranks
from training.data import Data, Split
from training.errors import BadTeacher
from training.evaluate import r2, rmse
from training.modes import evaluating
from training.tasks import Classification, Regression, Task

TEACHER_BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Logits:
    """A teacher known only by its outputs, (N, L) for each part of the data: logits of L classes, or L values."""

    train: npt.NDArray[Any]
    validation: npt.NDArray[Any]
    test: npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The teacher's outputs as the game sees them, on the training device, and what the manifest says of it.

    Those on the training and the validation part are of this process's own samples.
    """

    train_NL: Tensor
    validation_NL: Tensor
    test_NL: Tensor
    task: Task
    """What standardised them."""
    train_y_N: Tensor
    """Labels, where the loss mixes them in."""
    validation_y_N: Tensor
    teacher: Teacher
    network: nn.Module | None = None
    """The teacher itself, for its export and for samples made during training; None when only logits were given."""

    @property
    def largest(self) -> float:
        """Largest absolute output on the training set."""
        return float(ranks.largest(self.train_NL.abs().max()))

    def on(self, x: Tensor) -> Tensor:
        """The teacher's outputs (n, L) on raw samples x as the game sees them, in eval mode and without gradients.

        Raises:
            BadTeacher: there are only logits.
        """
        if self.network is None:
            raise BadTeacher("The teacher is known only by its logits, so it cannot answer new samples.")
        return self.task.standardise(evaluate(self.network, x))


def evaluate(network: nn.Module, x: Tensor) -> Tensor:
    """Float32 logits of somebody's network in eval mode and without gradients; its own modes are given back to it."""
    with evaluating(network):
        logits_NL: Tensor = network(x)
    return logits_NL.float()


def target_of(
    teacher: nn.Module | Logits, data: Data, device: torch.device, temperature: float, label_weight: float = 0
) -> Target:
    """Evaluate (a module) or take (arrays) the teacher's outputs, and check them against the data.

    A module is run in eval mode, on raw samples as a tensor of the data's dtype, and must return (N, L) logits, or
    values in the unit of the labels. Classifiers are compared at the temperature; `label_weight` is how much
    of the labels the loss mixes in.

    Raises:
        BadTeacher: a wrong shape, another number of classes, or a value that is not finite.
    """
    if isinstance(teacher, nn.Module):
        parts = {name: _run(teacher, _share(name, split.x), device) for name, split in data.splits().items()}
    else:
        parts = {name: _share(name, _array(name, getattr(teacher, name))) for name in data.splits()}
    for name, logits_NL in parts.items():
        _check(name, logits_NL, data)
    on_device = {name: outputs_NL.to(device) for name, outputs_NL in parts.items()}
    regression = data.task == "regression"
    task = (
        Regression.of(ranks.whole(on_device["train"]), label_weight)
        if regression
        else Classification(temperature, label_weight)
    )
    return Target(
        **{f"{name}_NL": task.standardise(outputs_NL) for name, outputs_NL in on_device.items()},
        train_y_N=task.labels(_labels(data.train, device)),
        validation_y_N=task.labels(_labels(data.validation, device)),
        task=task,
        teacher=_describe(teacher, data, device, _measure(parts["test"].cpu().numpy(), data)),
        network=teacher if isinstance(teacher, nn.Module) else None,
    )


def _share(part: str, rows: ranks.Rows) -> ranks.Rows:
    """This process's rows of a part; the test part is measured by one process, whole."""
    return rows if part == "test" else ranks.share(rows)


def _labels(split: Split, device: torch.device) -> Tensor:
    return torch.from_numpy(ranks.share(np.ascontiguousarray(split.y))).to(device)


def _measure(outputs_NL: npt.NDArray[Any], data: Data) -> dict[str, float]:
    if data.task == "regression":
        return {"rmse": rmse(outputs_NL, data.test.y), "r2": r2(outputs_NL, data.test.y)}
    return {"accuracy": float((outputs_NL.argmax(axis=1) == data.test.y).mean())}


def _run(teacher: nn.Module, x: npt.NDArray[Any], device: torch.device) -> Tensor:
    try:
        with evaluating(teacher.to(device)):
            samples = torch.from_numpy(np.ascontiguousarray(x)).to(device)
            outputs = [teacher(samples[start : start + TEACHER_BATCH]) for start in range(0, len(x), TEACHER_BATCH)]
    except Exception as error:  # whatever somebody's network raises
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise BadTeacher(f"The teacher cannot take samples of {x.dtype}{list(x.shape[1:])}: {reason}.") from error
    if not all(isinstance(output, Tensor) for output in outputs):
        raise BadTeacher(f"The teacher returns {type(outputs[0]).__name__}, but must return one tensor of logits.")
    if not all(output.ndim and output.shape[1:] == outputs[0].shape[1:] for output in outputs):
        shapes = " and ".join(str(tuple(output.shape)) for output in (outputs[0], outputs[-1]))
        raise BadTeacher(f"The teacher returns logits of shapes {shapes}, but must return (N, L) for N samples.")
    return torch.cat(outputs).float()


def _array(name: str, logits: npt.NDArray[Any]) -> Tensor:
    if not isinstance(logits, np.ndarray) or logits.dtype.kind != "f":
        raise BadTeacher(f"The teacher's {name} logits must be an array of floats.")
    return torch.from_numpy(logits.astype(np.float32))


def _check(name: str, logits_NL: Tensor, data: Data) -> None:
    samples, labels = len(_share(name, data.splits()[name].y)), len(data.classes)
    kind = "classes" if data.task == "classification" else "outputs"
    if logits_NL.ndim != 2 or logits_NL.shape[0] != samples:
        raise BadTeacher(
            f"The teacher's {name} logits have shape {tuple(logits_NL.shape)}, but must be ({samples}, {labels})."
        )
    if logits_NL.shape[1] != labels:
        raise BadTeacher(f"The teacher has {logits_NL.shape[1]} {kind}, but the data has {labels}.")
    if not bool(logits_NL.isfinite().all()):
        raise BadTeacher(f"The teacher's {name} logits hold NaN or infinity.")


def _describe(teacher: nn.Module | Logits, data: Data, device: torch.device, measured: dict[str, Any]) -> Teacher:
    if not isinstance(teacher, nn.Module):
        return Teacher(name="logits", **measured)
    name = getattr(teacher, "name", None)
    return Teacher(
        name=name if isinstance(name, str) else type(teacher).__name__,
        **measured,
        flops=flops.count_unknown(teacher, torch.from_numpy(data.train.x[:1]).to(device)) or None,
        parameters=flops.parameters(teacher),
    )
