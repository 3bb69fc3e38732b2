r"""The .npy form of an array, read strictly: numbers only, nothing executed, nothing allocated beyond the body.

    magic "\x93NUMPY", version, length of the header, header, numbers

The header is a Python literal. It is matched, never evaluated, and what it claims must be exactly what follows.
"""

from __future__ import annotations

import io
import math
import re
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

MEDIA_TYPE = "application/octet-stream"

MAGIC = b"\x93NUMPY"
LENGTH_BYTES = {b"\x01\x00": 2, b"\x02\x00": 4}
"""Size of the length field by version; versions above 2.0 differ only in names of fields, which numbers lack."""
MAX_HEADER_BYTES = 1024
"""numpy pads headers to a multiple of 64 bytes: 32 dimensions fit."""

NUMBERS = "biuf"
"""Kinds of dtype."""

HEADER = re.compile(
    rb"\{\s*'descr':\s*'(?P<descr>[<>|=]?[a-zA-Z]\d*)',\s*'fortran_order':\s*(?P<fortran>True|False),"
    rb"\s*'shape':\s*\((?P<shape>(?:\d{1,18},\s*)*(?:\d{1,18})?,?\s*)\),?\s*\}\s*"
)


class NotNpy(ValueError):
    """No array of numbers in .npy form; the message goes on from "The body is not valid .npy: "."""


def decode(content: bytes) -> npt.NDArray[Any]:
    """The array, a read-only view of `content`.

    Raises:
        NotNpy: the bytes are anything but one array of numbers.
    """
    if not content.startswith(MAGIC):
        raise NotNpy("it does not begin with the magic string \\x93NUMPY")
    width = LENGTH_BYTES.get(content[6:8])
    if width is None:
        raise NotNpy("its version is neither 1.0 nor 2.0")
    start = 8 + width
    end = start + int.from_bytes(content[8:start], "little")
    if end - start > MAX_HEADER_BYTES:
        raise NotNpy(f"its header has {end - start} bytes, more than {MAX_HEADER_BYTES}")
    dtype, shape, fortran = _parse(content[start:end])
    size = math.prod(shape)
    promised, got = size * dtype.itemsize, max(0, len(content) - end)
    if promised != got:
        raise NotNpy(f"{dtype}{list(shape)} has {promised} bytes, but {got} follow the header")
    try:
        return np.frombuffer(memoryview(content)[end:], dtype).reshape(shape, order="F" if fortran else "C")
    except ValueError as error:
        raise NotNpy(f"numpy can have no array of shape {list(shape)}") from error


def encode(array: npt.NDArray[Any]) -> bytes:
    """`array` in .npy form, version 1.0.

    Raises:
        NotNpy: it does not hold numbers.
    """
    if array.dtype.kind not in NUMBERS:
        raise NotNpy(f"it holds {array.dtype}, not numbers")
    return _head(array.dtype.str, array.shape) + array.tobytes()


# A client sends the same few shapes again and again.
@lru_cache(maxsize=256)
def _parse(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    found = HEADER.fullmatch(header)
    if found is None:
        raise NotNpy("its header is not {'descr': '<f4', 'fortran_order': False, 'shape': (rows, ...), }")
    descr = found["descr"].decode()
    try:
        dtype = np.dtype(descr)
    except TypeError as error:
        raise NotNpy(f"numpy knows no dtype {descr!r}") from error
    if dtype.kind not in NUMBERS:
        raise NotNpy(f"it holds {dtype}, not numbers")
    sizes = tuple(int(size) for size in found["shape"].replace(b" ", b"").split(b",") if size)
    return dtype, sizes, found["fortran"] == b"True"


@lru_cache(maxsize=256)
def _head(descr: str, shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()
