"""What a run is known by: hashes of everything that its result follows from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from training.data import Data
from training.networks import ModelClass
from training.targets import Logits


def fingerprint(
    purpose: str,
    settings: Mapping[str, object],
    data: Data,
    classes: Sequence[ModelClass],
    teacher: ModelClass | nn.Module | Logits,
) -> str:
    """Hash of a run: another purpose, setting, sample, model class or teacher gives another one.

    Settings alone would not do: of a file they tell only the name, and what is given from Python they do not tell.
    """
    known = teacher_sha256(teacher) if isinstance(teacher, nn.Module | Logits) else _described(teacher)
    identity = [purpose, dict(settings), data.sha256(), [_described(one) for one in classes], known]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def teacher_sha256(teacher: nn.Module | Logits) -> str:
    """Hash of a teacher: of its logits, or of its type and every tensor of its state."""
    digest = hashlib.sha256(type(teacher).__qualname__.encode())
    for name, value in _tensors(teacher):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _tensors(teacher: nn.Module | Logits) -> Iterator[tuple[str, Tensor]]:
    if isinstance(teacher, nn.Module):
        for name, value in teacher.state_dict().items():
            if isinstance(value, Tensor) and not is_lazy(value):
                yield name, value
        return
    for field in dataclasses.fields(teacher):
        array = getattr(teacher, field.name)
        if isinstance(array, np.ndarray) and array.dtype.kind == "f":  # whatever else it is, it is refused later
            yield field.name, torch.from_numpy(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))


def _described(model_class: ModelClass) -> str:
    """Every field of a dataclass; only the name of another, whose own repr would be an address."""
    return model_class.name if type(model_class).__repr__ is object.__repr__ else repr(model_class)
