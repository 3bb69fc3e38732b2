from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.npy import MAGIC, MAX_HEADER_BYTES, NotNpy, decode, encode

NUMBERS = st.one_of(
    arrays.boolean_dtypes(),
    arrays.integer_dtypes(endianness="?"),
    arrays.unsigned_integer_dtypes(endianness="?"),
    arrays.floating_dtypes(endianness="?"),
)
SHAPES = arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4)


def saved(array: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version)
    return stream.getvalue()


def crafted(header: bytes, content: bytes = b"\0" * 8, *, version: bytes = b"\1\0", length: int | None = None) -> bytes:
    return MAGIC + version + (len(header) if length is None else length).to_bytes(2, "little") + header + content


GOOD = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }"


@settings(max_examples=50, deadline=None)
@given(arrays.arrays(NUMBERS, SHAPES), st.sampled_from([(1, 0), (2, 0)]), st.booleans())
def test_what_numpy_writes_is_read_as_it_was(array: np.ndarray, version: tuple[int, int], fortran: bool):
    array = np.asfortranarray(array) if fortran else array
    read = decode(saved(array, version))
    assert (read.dtype, read.shape) == (array.dtype, array.shape)
    assert read.tobytes() == array.tobytes(), "bit for bit"


@settings(max_examples=50, deadline=None)
@given(arrays.arrays(NUMBERS, SHAPES))
def test_what_is_written_numpy_reads_without_pickle(array: np.ndarray):
    read = np.load(io.BytesIO(encode(array)), allow_pickle=False)
    assert (read.dtype, read.shape, read.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_the_array_is_a_view_of_the_body():
    assert not decode(saved(np.zeros((2, 3), np.float32))).flags.owndata


def test_spacing_is_free():
    (row,) = decode(crafted(b"{'descr':'<f4','fortran_order':False,'shape':(1,2)}"))
    assert row.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "magic"),
        (b"PK\3\4", "magic"),
        (MAGIC, "version"),
        (crafted(GOOD, version=b"\3\0"), "version"),
        (crafted(GOOD, length=MAX_HEADER_BYTES + 1), "more than 1024"),
        (crafted(GOOD, length=60000), "more than 1024"),
        (crafted(b""), "header is not"),
        (crafted(GOOD[:-3]), "header is not"),
        (crafted(b"__import__('os').system('true')"), "header is not"),
        (crafted(GOOD.replace(b"False", b"maybe")), "header is not"),
        (crafted(GOOD.replace(b"(1, 2)", b"(1, -2)")), "header is not"),
        (crafted(GOOD.replace(b"(1, 2)", b"[1, 2]")), "header is not"),
        (crafted(GOOD.replace(b"'<f4'", b"[('a', '<f4')]")), "header is not"),
        (crafted(GOOD.replace(b"<f4", b"|O")), "holds object, not numbers"),
        (crafted(GOOD.replace(b"<f4", b"<U1")), "not numbers"),
        (crafted(GOOD.replace(b"<f4", b"<c8")), "holds complex64, not numbers"),
        (crafted(GOOD.replace(b"<f4", b"<f3")), "no dtype '<f3'"),
        (crafted(GOOD, b"\0" * 7), "has 8 bytes, but 7 follow"),
        (crafted(GOOD, b"\0" * 9), "has 8 bytes, but 9 follow"),
        (crafted(GOOD, length=len(GOOD) + 50), "header is not"),
        (crafted(GOOD.replace(b"(1, 2)", b"(999999999999999999, 999999999999999999)")), "bytes, but 8 follow"),
        (crafted(GOOD.replace(b"(1, 2)", b"(0, 999999999999999999, 999999999999999999)"), b""), "no array of shape"),
        (crafted(GOOD.replace(b"(1, 2)", b"(" + b"0," * 100 + b")"), b""), "no array of shape"),
    ],
)
def test_anything_else_is_refused_in_one_sentence(content: bytes, sentence: str):
    with pytest.raises(NotNpy, match=sentence) as caught:
        decode(content)
    assert "\n" not in str(caught.value)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 80), st.integers(0, 80))
def test_no_bytes_do_anything_but_decode_or_be_refused(noise: bytes, start: int, length: int):
    good = saved(np.arange(6, dtype=np.float32).reshape(2, 3))
    content = good[:start] + noise + good[start + length :]
    with contextlib.suppress(NotNpy):
        assert decode(content).nbytes <= len(content)


def test_objects_are_not_written():
    with pytest.raises(NotNpy, match="object"):
        encode(np.array([None]))
