from __future__ import annotations

from typing import Any, get_args

import numpy as np
import orjson
import pytest

from bundle import Tensor
from bundle.record import DType
from service.errors import EmptyBatch, NotFinite, Problem, TooManyRows, WrongDtype, WrongShape
from service.tensors import check_unmixed, to_tensor

FLOATS = Tensor(name="x", dtype="float32", shape=(3,))
PIXELS = Tensor(name="x", dtype="uint8", shape=(2, 2))
SCALARS = Tensor(name="x", dtype="float32", shape=())


@pytest.mark.parametrize(
    ("values", "expected"),
    [([[1, 2.5, -3]], FLOATS), ([[[0, 255], [1, 2]], [[3, 4], [5, 6]]], PIXELS), ([1.0, 2.0], SCALARS)],
)
def test_good_inputs_come_out_as_the_model_wants_them(values: Any, expected: Tensor):
    array = to_tensor(values, expected, max_rows=8)
    assert array.dtype == expected.dtype
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(array, np.asarray(values, expected.dtype))


@pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("dtype", get_args(DType))
def test_a_json_body_gives_the_array_that_it_was_made_from(dtype: DType, shape: tuple[int, ...]):
    random = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        sent = random.normal(scale=1e3, size=(3, *shape)).astype(dtype)
        sent.flat[0] = np.finfo(dtype).max
    elif dtype == "bool":
        sent = random.random((3, *shape)) < 0.5
    else:
        known = np.iinfo(dtype)
        sent = random.integers(known.min, known.max, (3, *shape), dtype=dtype)
        sent.flat[0], sent.flat[-1] = known.min, known.max
    got = to_tensor(orjson.loads(orjson.dumps(sent.tolist())), Tensor(name="x", dtype=dtype, shape=shape), max_rows=3)
    assert got.flags.c_contiguous
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, sent)


@pytest.mark.parametrize(
    ("values", "expected", "kind", "sentence"),
    [
        ([], FLOATS, EmptyBatch, "`inputs` is empty"),
        ([[]], FLOATS, WrongShape, r"has shape \[1, 0\].*expected \[rows, 3\]"),
        ([[1, 2]], FLOATS, WrongShape, r"has shape \[1, 2\].*float32\[3\]"),
        ([1, 2, 3], FLOATS, WrongShape, r"has shape \[3\]"),
        ([[1, 2, 3], [1, 2]], FLOATS, WrongShape, "ragged"),
        (7, FLOATS, WrongShape, "is a number"),
        ("abc", FLOATS, WrongShape, "is a string"),
        (None, FLOATS, WrongShape, "is null"),
        ({"a": 1}, FLOATS, WrongShape, "is an object"),
        ([["a", "b", "c"]], FLOATS, WrongDtype, "holds strings"),
        ([[None, 1, 2]], FLOATS, WrongDtype, "holds null"),
        ([[True, False, True]], FLOATS, WrongDtype, "holds booleans"),
        ([[1, 2, 1e300]], FLOATS, NotFinite, "too large for float32"),
        ([[float("nan"), 1, 2]], FLOATS, NotFinite, "NaN"),
        ([[float("inf"), 1, 2]], FLOATS, NotFinite, "infinity"),
        ([[10**400, 1, 2]], FLOATS, Problem, "inputs"),
        ([[[0.5, 1], [2, 3]]], PIXELS, WrongDtype, "holds fractions"),
        ([[[0, 256], [1, 2]]], PIXELS, WrongDtype, "from 0 to 256.*expected 0 to 255"),
        ([[[-1, 2], [1, 2]]], PIXELS, WrongDtype, "from -1 to 2"),
        ([[[True, False], [True, True]]], PIXELS, WrongDtype, "holds booleans"),
        ([[[None, 1], [1, 2]]], PIXELS, WrongDtype, "holds null"),
        ([["ab", "cd"]], PIXELS, WrongDtype, "holds strings|has shape"),
        ([{"a": 1, "b": 2}] * 2, PIXELS, Problem, "`inputs`"),
        ([[1, 2, 3]] * 9, FLOATS, TooManyRows, "9 samples .* at most 8"),
        # The first tells: the others are not looked at.
        ([[1, 2, 3], *[[]] * 8], FLOATS, TooManyRows, "9 samples .* at most 8"),
        ([1.0] * 9, SCALARS, TooManyRows, "9 samples .* at most 8"),
        # One sample without its batch axis is not many samples.
        ([1] * 9, FLOATS, WrongShape, r"has shape \[9\]"),
        ([[1, 2]] * 9, FLOATS, WrongShape, r"has shape \[9, 2\]"),
    ],
)
def test_bad_inputs_are_one_sentence(values: Any, expected: Tensor, kind: type[Problem], sentence: str):
    with pytest.raises(kind, match=sentence) as caught:
        to_tensor(values, expected, max_rows=8)
    assert caught.value.detail.count(". ") == 0, "one sentence"


def test_wrong_shape_says_expected_and_got_to_programs():
    with pytest.raises(WrongShape) as caught:
        to_tensor([[1, 2]], FLOATS, max_rows=8)
    assert caught.value.members == {"expected": ["rows", 3], "got": [1, 2]}


@pytest.mark.parametrize("values", [[[True, 1.0, 2]], [0, [[False]]], [[True, None]]])
def test_truth_values_among_numbers_are_refused(values: Any):
    with pytest.raises(WrongDtype, match="truth values among others"):
        check_unmixed(values)


@pytest.mark.parametrize("values", [["x", ""], [[1, 2], [3, "4"]], [[["a" * 10**6]], True]])
def test_text_is_refused_before_numpy_makes_room_for_the_longest(values: Any):
    with pytest.raises(WrongDtype, match="holds text"):
        check_unmixed(values)
    check_unmixed("a text that is no list is refused as such")


def test_truth_values_by_themselves_are_left_to_the_model():
    deep: list[Any] = [True]
    for _ in range(5000):
        deep = [deep]
    for values in ([[True, False], []], [[1, 2.5]], [], 3, True, deep):
        check_unmixed(values)
