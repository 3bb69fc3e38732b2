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
    for what, content in _state(teacher) if isinstance(teacher, nn.Module) else _parts(teacher):
        digest.update(what.encode())
        digest.update(content)
    return digest.hexdigest()


def _state(teacher: nn.Module) -> Iterator[tuple[str, bytes]]:
    for name, value in teacher.state_dict().items():
        if isinstance(value, Tensor) and not is_lazy(value):
            plain = value.detach().to_dense().cpu().contiguous().reshape(-1)
            yield f"{name}{tuple(value.shape)}{value.dtype}", plain.view(torch.uint8).numpy().tobytes()


def _parts(logits: Logits) -> Iterator[tuple[str, bytes]]:
    for field in dataclasses.fields(logits):
        array = getattr(logits, field.name)
        if isinstance(array, np.ndarray) and array.dtype.kind == "f":  # whatever else it is, it is refused later
            plain = array.astype(array.dtype.newbyteorder("="))
            yield f"{field.name}{plain.shape}{plain.dtype}", plain.tobytes()


def _described(model_class: ModelClass) -> str:
    """Every field of a dataclass; only the name of another, whose own repr would be an address."""
    return model_class.name if type(model_class).__repr__ is object.__repr__ else repr(model_class)
