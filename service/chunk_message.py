"""A message of a stream to what it says: a chunk as a tensor, a deadline, or that this is the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bundle import Tensor
from service import npy
from service.body import parse
from service.errors import InvalidField, MalformedBody, WrongShape
from service.stream_schemas import StreamMessage
from service.tensors import check_unmixed, to_tensor


@dataclass(frozen=True, slots=True)
class Said:
    """What a message says."""

    chunk: npt.NDArray[Any] | None = None
    """(1, chunk_steps, ...) in the bundle's dtype."""
    deadline_ms: float | None = None
    """For this chunk and those after it; None: as before."""
    end: bool = False


def read(content: bytes | str, expected: Tensor) -> Said:
    """Read a binary message as an .npy chunk, a text message as JSON.

    Args:
        content: of the message.
        expected: the bundle's `chunk_input`.

    Raises:
        MalformedBody, InvalidField, WrongShape, WrongDtype, NotFinite: the message cannot be what it is.
    """
    if isinstance(content, bytes):
        try:
            return Said(_chunk(npy.decode(content), expected))
        except npy.NotNpy as error:
            raise MalformedBody(f"The binary message is not valid .npy: {error}.") from error
    message = parse(content, StreamMessage, "text message")
    if not message.model_fields_set:
        raise InvalidField("Field `inputs`: the message says nothing; send a chunk, or `end`.", field="inputs")
    if "true" in content or "false" in content or content.count('"') > 2 * len(message.model_fields_set):
        check_unmixed(message.inputs)
    chunk = None if message.inputs is None else _chunk(message.inputs, expected)
    return Said(chunk, message.deadline_ms, message.end)


def _chunk(values: object, expected: Tensor) -> npt.NDArray[Any]:
    """One chunk as a batch of one."""
    shape = values.shape if isinstance(values, np.ndarray) else _shape(values)
    if shape is not None and shape != expected.shape:
        raise WrongShape(
            f"`inputs` has shape {list(shape)}, but a chunk must be {expected.dtype}{list(expected.shape)}.",
            expected=list(expected.shape),
            got=list(shape),
        )
    return to_tensor(values[None] if isinstance(values, np.ndarray) else [values], expected, 1)


def _shape(values: object) -> tuple[int, ...] | None:
    """Of nested lists; None where that is for `to_tensor` to refuse."""
    try:
        return np.shape(values)  # type: ignore[call-overload,no-any-return]
    except ValueError:
        return None
