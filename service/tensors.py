"""JSON numbers, or an array, to a tensor of the model's dtype and shape, or one sentence that says why not."""

from __future__ import annotations

import struct
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from bundle import Tensor
from service.errors import EmptyBatch, NotFinite, TooManyRows, WrongDtype, WrongShape


def to_tensor(values: object, expected: Tensor, max_rows: int) -> npt.NDArray[Any]:
    """A batch of samples as an array (rows, *expected.shape) of `expected.dtype`.

    Raises:
        Problem: one of WrongShape, WrongDtype, NotFinite, EmptyBatch, TooManyRows.
    """
    packed = _pack(values, expected, max_rows)
    if packed is not None:
        return packed
    array = _to_array(values, expected, max_rows)
    if array.ndim == 0:
        raise WrongShape(
            f"`inputs` is one number, but {_words(expected)}: send an array of samples.",
            expected=["rows", *expected.shape],
            got=[],
        )
    if array.size == 0 and (array.ndim == 1 or array.shape[0] == 0):
        raise EmptyBatch("`inputs` is empty: send at least one sample.")
    _check_kind(array, expected)
    if array.shape[1:] != expected.shape:
        raise WrongShape(
            f"`inputs` has shape {list(array.shape)}, but {_words(expected)}: "
            f"expected [rows{''.join(f', {size}' for size in expected.shape)}].",
            expected=["rows", *expected.shape],
            got=list(array.shape),
        )
    if len(array) > max_rows:
        raise _too_many(len(array), max_rows)
    return _convert(array, expected)


def check_unmixed(values: object) -> None:
    """Refuse truth values among numbers, which numpy would take for 0 and 1, and text.

    numpy would make room for the longest text in the place of each value: a small body would take all memory.

    Raises:
        WrongDtype: `values`, nested lists, holds text, or truth values among others.
    """
    # No recursion: a body may be nested more deeply than Python's stack.
    todo, kinds = [values], set()
    while todo:
        one = todo.pop()
        if isinstance(one, list):
            todo.extend(one)
        elif isinstance(one, str) and one is not values:
            raise WrongDtype("`inputs` holds text: send numbers.")
        else:
            kinds.add(type(one))
    if bool in kinds and len(kinds) > 1:
        raise WrongDtype("`inputs` holds truth values among others: send numbers, or truth values only.")


def _pack(values: object, expected: Tensor, max_rows: int) -> npt.NDArray[Any] | None:
    """Nested lists that are as they should be; None for all else, which is then looked at more closely.

    numpy would find out shape and kind one number after the other and convert them afterwards, in twice the time.
    """
    dtype = np.dtype(expected.dtype)
    if not isinstance(values, list) or not 0 < len(values) <= max_rows or dtype.kind == "b":
        return None
    try:
        flat = _flatten(values, expected.shape)
        if isinstance(flat[0], bool):
            return None
        # Both refuse what is of another kind, or has no room in the dtype.
        content = bytes(flat) if dtype == np.uint8 else struct.pack(f"{len(flat)}{dtype.char}", *flat)
    except (TypeError, ValueError, OverflowError, struct.error):
        return None
    array = np.frombuffer(content, dtype).reshape(len(values), *expected.shape)
    return array if dtype.kind != "f" or np.isfinite(array).all() else None


def _flatten(values: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """The numbers in samples of a shape, in order.

    Raises:
        TypeError, ValueError: the samples have another shape.
    """
    for size in shape:
        if set(map(len, values)) != {size}:
            raise ValueError("ragged, or of another shape")
        values = list(chain.from_iterable(values))
    return values


def _to_array(values: object, expected: Tensor, max_rows: int) -> npt.NDArray[Any]:
    if isinstance(values, np.ndarray):
        return values
    if not isinstance(values, list):
        raise WrongShape(
            f"`inputs` is {_json_type(values)}, but {_words(expected)}: send an array of samples.",
            expected=["rows", *expected.shape],
            got=[],
        )
    if len(values) > max_rows and _has_shape(values[0], expected.shape):
        # Said before all of them are looked at, which takes a while.
        raise _too_many(len(values), max_rows)
    try:
        return np.asarray(values)
    except ValueError as error:
        raise WrongShape(
            f"`inputs` is ragged: its samples differ in shape, but {_words(expected)}.",
            expected=["rows", *expected.shape],
            got=None,
        ) from error
    except OverflowError as error:
        raise NotFinite("`inputs` holds an integer that no dtype can hold.") from error


def _check_kind(array: npt.NDArray[Any], expected: Tensor) -> None:
    """Refuse what would only fit with a loss: text, null, truth values as numbers, fractions as integers."""
    allowed = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}[np.dtype(expected.dtype).kind]
    if array.dtype.kind not in allowed:
        got = {"O": "null or mixed values", "U": "strings", "b": "booleans", "f": "fractions"}.get(
            array.dtype.kind, str(array.dtype)
        )
        raise WrongDtype(
            f"`inputs` holds {got}, but {_words(expected)}.", expected=expected.dtype, got=str(array.dtype)
        )


def _convert(array: npt.NDArray[Any], expected: Tensor) -> npt.NDArray[Any]:
    dtype = np.dtype(expected.dtype)
    if dtype.kind in "iu" and array.dtype != dtype:
        limits = np.iinfo(dtype)
        if array.min() < limits.min or array.max() > limits.max:
            raise WrongDtype(
                f"`inputs` holds numbers from {array.min()} to {array.max()}, but {_words(expected)}: "
                f"expected {limits.min} to {limits.max}.",
                expected=expected.dtype,
                got=str(array.dtype),
            )
    converted = _cast(array, dtype)
    if dtype.kind == "f" and not np.isfinite(converted).all():
        raise NotFinite(f"`inputs` holds NaN, infinity, or a number too large for {expected.dtype}.")
    return converted


def _cast(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """`array` itself where it will do: contiguous, and aligned, which a view of a body need not be."""
    if array.dtype == dtype and array.flags.c_contiguous and array.flags.aligned:
        return array
    with np.errstate(over="ignore"):
        return array.astype(dtype, order="C")


def _has_shape(sample: object, shape: tuple[int, ...]) -> bool:
    """Whether nested lists look like one sample, by the first of each."""
    for size in shape:
        if not isinstance(sample, list) or len(sample) != size:
            return False
        sample = sample[0] if sample else None
    return not isinstance(sample, list)


def _too_many(rows: int, max_rows: int) -> TooManyRows:
    return TooManyRows(f"{rows} samples in one request, but at most {max_rows} are allowed: send several.")


def _words(expected: Tensor) -> str:
    return f"each sample must be {expected.dtype}{list(expected.shape)}"


def _json_type(value: object) -> str:
    kinds = {dict: "an object", str: "a string", bool: "a truth value", type(None): "null"}
    return kinds.get(type(value), "a number")
