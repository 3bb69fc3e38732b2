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
    """Hash of a teacher: of its logits, or of its type and every tensor of its state.

    What is no part of the state, such as a plain attribute, is not seen.
    """
    digest = hashlib.sha256(type(teacher).__qualname__.encode())
    for what, content in _state(teacher) if isinstance(teacher, nn.Module) else _parts(teacher):
        digest.update(what.encode())
        digest.update(content)
    return digest.hexdigest()


def _state(teacher: nn.Module) -> Iterator[tuple[str, bytes]]:
    for name, value in teacher.state_dict().items():
        yield from _tensors(name, value)


def _tensors(name: str, value: object) -> Iterator[tuple[str, bytes]]:
    """Of one entry; quantised layers keep theirs in tuples."""
    if isinstance(value, tuple | list):
        for position, part in enumerate(value):
            yield from _tensors(f"{name}.{position}", part)
    elif isinstance(value, Tensor) and not is_lazy(value):
        plain = (value.dequantize() if value.is_quantized else value.detach().to_dense()).cpu().contiguous().reshape(-1)
        yield f"{name}{tuple(value.shape)}{value.dtype}", plain.view(torch.uint8).numpy().tobytes()


def _parts(logits: Logits) -> Iterator[tuple[str, bytes]]:
    for field in dataclasses.fields(logits):
        array = getattr(logits, field.name)
        if isinstance(array, np.ndarray) and array.dtype.kind == "f":  # whatever else it is, it is refused later
            plain = array.astype(array.dtype.newbyteorder("="))
            yield f"{field.name}{plain.shape}{plain.dtype}", plain.tobytes()


def _described(model_class: ModelClass) -> str:
    """Every field of a dataclass that it is printed with, and only the name of anything else.

    Functions in fields go by name too: what they are printed as is an address, another one in each process.
    """
    fields = getattr(model_class, "__dataclass_fields__", {})
    values = {key: getattr(model_class, key) for key, field in fields.items() if field.repr}
    named = {key: getattr(value, "__qualname__", None) or repr(value) for key, value in values.items()}
    return f"{type(model_class).__qualname__} {model_class.name} {named}"
