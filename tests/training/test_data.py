"""Data sets: parts kept apart, reproducible by seed, and clear words for bad arrays."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.toy import toy_data
from training import Data, Split
from training.data import cube, digits, ellipsoid, friedman, npz
from training.data.arrays import stratified
from training.errors import BadData


@pytest.mark.parametrize(
    ("module", "shape", "dtype", "classes"),
    [(digits, (8, 8), "uint8", 10), (ellipsoid, (32,), "float32", 2), (cube, (4, 8), "float32", 4)],
)
def test_a_seed_decides_everything(module, shape: tuple[int, ...], dtype: str, classes: int):
    data = module.load(0)
    assert (data.input_shape, data.train.x.dtype.name, len(data.classes)) == (shape, dtype, classes)
    assert set(np.unique(data.train.y)) == set(range(classes))
    assert data.sha256() == module.load(0).sha256() != module.load(1).sha256()


def test_digits_are_parted_without_loss_or_overlap_and_stratified():
    data = digits.load(0)
    scans = {name: split.x.reshape(len(split), -1) for name, split in data.splits().items()}
    scans["train"] = scans["train"][: len(data.train) // 3]
    assert len(np.unique(np.concatenate(list(scans.values())), axis=0)) == 1797
    for split in data.splits().values():
        shares = np.bincount(split.y) / len(split)
        assert np.abs(shares - 0.1).max() < 0.012


def test_training_scans_come_with_their_shifts_and_labels():
    train = digits.load(0).train
    plain, right, left = np.split(train.x, 3)
    np.testing.assert_array_equal(right[:, :, 1:], plain[:, :, :-1])
    np.testing.assert_array_equal(left[:, :, :-1], plain[:, :, 1:])
    assert not right[:, :, 0].any()
    assert not left[:, :, -1].any()
    for labels in np.split(train.y, 3):
        np.testing.assert_array_equal(labels, train.y[: len(plain)])


def test_ellipsoid_labels_are_balanced_and_even_in_x():
    """x^T A x is large for long vectors, whatever their sign."""
    data = ellipsoid.load(0)
    assert abs(data.train.y.mean() - 0.5) < 0.03
    length = np.linalg.norm(data.train.x, axis=1)
    long, short = data.train.y[length > np.quantile(length, 0.95)], data.train.y[length < np.quantile(length, 0.05)]
    assert long.mean() > 0.85
    assert short.mean() < 0.15
    assert abs(np.corrcoef(data.train.x.mean(axis=1), data.train.y)[0, 1]) < 0.05


def test_cube_labels_are_those_of_the_nearest_vertex():
    """A linear classifier of vertices is all it takes: points near one vertex share a label."""
    data = cube.load(0)
    x = data.train.x.reshape(len(data.train), -1)
    signs = np.sign(x[:200])
    for row, label in zip(signs, data.train.y[:200], strict=True):
        inner = x @ row
        nearest = data.train.y[np.argsort(inner)[-5:]]
        assert label in nearest


def test_hash_sees_every_part():
    data, _ = toy_data()
    for name, split in data.splits().items():
        x = split.x.copy()
        x[0, 0] += 1
        assert dataclasses.replace(data, **{name: Split(x, split.y)}).sha256() != data.sha256()


def test_stratified_takes_the_share_of_every_label():
    y = np.repeat([0, 1, 2], [100, 40, 10])
    assert list(np.bincount(y[stratified(y, 0.3, seed=1)])) == [30, 12, 3]


def bad(**changes) -> Data:
    x, y = np.zeros((4, 3), np.float32), np.array([0, 1, 0, 1])
    good = Split(x, y)
    parts = {"train": good, "validation": good, "test": good, "classes": ("a", "b")}
    return Data(**{**parts, **changes})


X, Y = np.zeros((4, 3), np.float32), np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"classes": ("a",)}, "classes must be two or more different names"),
        ({"classes": ("a", "a")}, "classes must be two or more different names"),
        ({"classes": (0, 1)}, "classes must be names, in quotes, not [0, 1]."),
        ({"task": "Classification"}, "task='Classification' is none of: classification, regression."),
        ({"train": Split(X.astype(np.float64), Y)}, "train x has dtype float64"),
        ({"test": Split(X[:0], Y[:0])}, "test x has shape (0, 3)"),
        ({"train": Split(X[:, 0], Y)}, "train x has shape (4,)"),
        ({"train": Split(X, Y.astype(np.float32))}, "must be one integer label a sample"),
        ({"train": Split(X, Y[:3])}, "train has 4 samples x but 3 labels y."),
        ({"validation": Split(np.full_like(X, np.nan), Y)}, "validation x holds NaN or infinity in 12 places."),
        ({"train": Split(X, Y + 1)}, "train y holds labels from 1 to 2, but there are 2 classes"),
        ({"train": Split(X, Y - 1)}, "train y holds labels from -1 to 0, but there are 2 classes"),
        ({"test": Split(np.zeros((4, 5), np.float32), Y)}, "do not have samples of one shape and dtype"),
        ({"train": Split(X[:1], Y[:1])}, "train has one sample, but must have two or more"),
        ({"classes": (), "task": "regression"}, "classes must be one or more different names, not []."),
        ({"classes": ("y",), "task": "regression"}, "must be floats of shape (4, 1)"),
    ],
)
def test_bad_arrays_are_one_sentence(changes: dict, sentence: str):
    with pytest.raises(BadData) as caught:
        bad(**changes)
    assert sentence in str(caught.value)


def test_a_regression_is_not_measured_on_one_sample():
    split = Split(X, Y[:, None].astype(np.float32))
    with pytest.raises(BadData, match="test has one sample, but must have two or more: of one there is no R²"):
        Data(train=split, validation=split, test=Split(X[:1], split.y[:1]), classes=("y",), task="regression")


@pytest.mark.parametrize("array", [torch.zeros(4, 3), [[0.0] * 3] * 4, None])
def test_what_is_no_array_is_one_sentence(array: object):
    with pytest.raises(BadData, match=r"x is a \w+, but must be an array of numpy\."):
        Split(array, Y)
    with pytest.raises(BadData, match=r"y is a \w+, but must be an array of numpy\."):
        Split(X, array)


def test_arrays_of_any_byte_order_and_layout_are_the_same_data():
    data = toy_data()[0]
    for changed in (
        Split(data.train.x.astype(">f4"), data.train.y.astype(">i8")),
        Split(np.flip(np.flip(data.train.x, 1).copy(), 1), data.train.y[::-1].copy()[::-1]),
    ):
        same = dataclasses.replace(data, train=changed)
        assert same.sha256() == data.sha256()
        for array in (same.train.x, same.train.y):
            assert torch.from_numpy(array).is_contiguous()
    assert np.shares_memory(Split(X, Y).x, X), "what is right is not copied"


def test_class_names_are_the_same_from_a_tuple_a_list_or_an_array():
    data = toy_data()[0]
    for classes in (list(data.classes), np.array(data.classes)):
        same = dataclasses.replace(data, classes=classes)
        assert (same.classes, same.sha256()) == (data.classes, data.sha256())


def archive(folder: Path, **changes) -> Path:
    """A valid archive with some arrays changed; None leaves one out."""
    random = np.random.default_rng(0)
    arrays = {
        "train_x": random.normal(size=(30, 4)).astype(np.float32),
        "train_y": np.arange(30) % 3,
        "test_x": random.normal(size=(9, 4)).astype(np.float32),
        "test_y": np.arange(9) % 3,
    }
    arrays = {name: value for name, value in {**arrays, **changes}.items() if value is not None}
    np.savez(folder / "mine.npz", **arrays)
    return folder / "mine.npz"


def test_npz_without_logits(tmp_path: Path):
    data, logits = npz.load(archive(tmp_path), seed=0)
    assert logits is None
    assert (len(data.train), len(data.validation), len(data.test)) == (24, 6, 9)
    assert data.classes == ("class 0", "class 1", "class 2")


@pytest.mark.parametrize(("shape", "dtype"), [((3, 32, 32), "uint8"), ((125, 45), "float32")])
def test_npz_takes_images_and_windows_as_they_are(tmp_path: Path, shape: tuple[int, ...], dtype: str):
    random = np.random.default_rng(0)
    train_x = random.integers(0, 256, size=(30, *shape)).astype(dtype)
    data, _ = npz.load(archive(tmp_path, train_x=train_x, test_x=train_x[:9]), seed=0)
    assert (data.input_shape, data.train.x.dtype.name) == (shape, dtype)
    np.testing.assert_array_equal(data.test.x, train_x[:9])
    assert {row.tobytes() for row in [*data.train.x, *data.validation.x]} == {row.tobytes() for row in train_x}


def test_npz_takes_arrays_of_another_byte_order(tmp_path: Path):
    data, _ = npz.load(archive(tmp_path), seed=0)
    x, y = np.random.default_rng(0).normal(size=(30, 4)).astype(">f4"), (np.arange(30) % 3).astype(">i4")
    assert npz.load(archive(tmp_path, train_x=x, train_y=y), seed=0)[0].sha256() == data.sha256()


def test_npz_logits_stay_with_their_samples(tmp_path: Path):
    path = archive(tmp_path)
    with np.load(path) as arrays:
        train, test = arrays["train_x"], arrays["test_x"]
    data, logits = npz.load(archive(tmp_path, train_logits=train, test_logits=test), seed=0)
    assert logits is not None
    for name, split in data.splits().items():
        np.testing.assert_array_equal(getattr(logits, name), split.x)
    assert len(data.classes) == 4, "as many as the logits say"


VALIDATION = {"val_x": np.ones((4, 4), np.float32), "val_y": np.arange(4) % 3}


def test_npz_with_validation_samples_of_its_own_draws_none(tmp_path: Path):
    """So that a split by person stays one by person."""
    path = archive(tmp_path, **VALIDATION)
    with np.load(path) as arrays:
        train_x = arrays["train_x"]
    data, logits = npz.load(path, seed=0)
    assert logits is None
    np.testing.assert_array_equal(data.validation.x, VALIDATION["val_x"])
    np.testing.assert_array_equal(data.validation.y, VALIDATION["val_y"])
    np.testing.assert_array_equal(data.train.x, train_x)
    assert data.sha256() == npz.load(path, seed=1)[0].sha256()


def test_npz_logits_of_three_parts(tmp_path: Path):
    given = {name: np.full((size, 5), size) for name, size in (("train_logits", 30), ("val_logits", 4))}
    data, logits = npz.load(archive(tmp_path, **VALIDATION, **given, test_logits=np.full((9, 5), 9)), seed=0)
    assert logits is not None
    for name, split in data.splits().items():
        assert getattr(logits, name).shape == (len(split), 5)
        assert (getattr(logits, name) == len(split)).all()
    assert len(data.classes) == 5


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"train_y": None}, "lacks train_y; it holds test_x, test_y, train_x."),
        ({"labels": np.zeros(3)}, "holds labels, which nothing reads"),
        ({"train_logits": np.zeros((30, 3))}, "give exactly train_logits and test_logits, or none."),
        ({"val_x": np.zeros((4, 4), np.float32)}, "holds half of the validation part: give both val_x and val_y."),
        (
            {**VALIDATION, "train_logits": np.zeros((30, 3)), "test_logits": np.zeros((9, 3))},
            "give exactly val_logits and train_logits and test_logits, or none.",
        ),
        ({**VALIDATION, "val_y": np.arange(3)}, "val_x has 4 samples but val_y has 3 labels."),
        ({**VALIDATION, "val_y": np.full(4, -1)}, "val_y holds the label -1, but labels count from 0."),
        ({"train_x": np.float32(3)}, "train_x has 1 samples but train_y has 30 labels."),
        (
            {"train_logits": np.float32(1), "test_logits": np.float32(1)},
            "train_logits has shape (1,), but must be (samples, classes or outputs).",
        ),
        ({"val_logits": np.zeros((6, 3))}, "give exactly train_logits and test_logits, or none."),
        ({"train_y": np.arange(20) % 3}, "train_x has 30 samples but train_y has 20 labels."),
        ({"train_y": np.zeros((30, 1), int)}, "train_y has shape (30, 1) and dtype int64, but must be labels;"),
        ({"train_y": np.zeros((30, 1, 1))}, "train_y has shape (30, 1, 1) and dtype float64, but must be values (N,)"),
        ({"train_y": np.full(30, np.nan)}, "train y holds NaN or infinity in "),
        ({"train_logits": np.zeros((29, 3)), "test_logits": np.zeros((9, 3))}, "train_logits has 29 rows for 30"),
        ({"train_y": np.arange(30) - 1}, "train_y holds the label -1, but labels count from 0."),
        ({"train_x": np.full((30, 4), np.inf, np.float32)}, "holds NaN or infinity"),
        ({"train_x": np.zeros((30, 4), object)}, "cannot be read as an .npz archive of plain arrays"),
    ],
)
def test_a_bad_archive_is_one_sentence(tmp_path: Path, changes: dict, sentence: str):
    path = archive(tmp_path, **changes)
    with pytest.raises(BadData) as caught:
        npz.load(path, seed=0)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(("shape", "task"), [((30,), "auto"), ((30, 2), "auto"), ((30,), "regression")])
def test_float_labels_are_values_of_a_regression(tmp_path: Path, shape: tuple[int, ...], task: str):
    y = np.arange(np.prod(shape)).reshape(shape)
    y = y if task == "regression" else y + 0.5
    test_y = y[:9]
    data, _ = npz.load(archive(tmp_path, train_y=y, test_y=test_y), seed=0, task=task)
    assert data.task == "regression"
    assert data.classes == tuple(f"output {index}" for index in range(data.train.y.shape[1]))
    np.testing.assert_array_equal(data.test.y, test_y.reshape(9, -1))
    assert sorted([*data.train.y[:, 0], *data.validation.y[:, 0]]) == sorted(y.reshape(30, -1)[:, 0])
    assert (len(data.train), len(data.validation)) == (24, 6)


def test_float_labels_are_refused_where_classes_were_asked_for(tmp_path: Path):
    with pytest.raises(BadData, match="must be labels; floats are values of a regression, --set task=regression"):
        npz.load(archive(tmp_path, train_y=np.zeros(30)), seed=0, task="classification")


def test_friedman_is_its_formula_and_noise():
    data = friedman.load(0)
    x, y = data.train.x.astype(np.float64), data.train.y[:, 0]
    clean = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    assert abs((y - clean).mean()) < 0.06
    assert (y - clean).std() == pytest.approx(friedman.NOISE, rel=0.04)


@pytest.mark.parametrize("content", [None, b"", b"not an archive", b"PK\x03\x04cut"])
def test_a_file_that_is_no_archive_is_one_sentence(tmp_path: Path, content: bytes | None):
    path = tmp_path / "mine.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadData, match=r"mine\.npz"):
        npz.load(path, seed=0)


def test_a_single_array_is_no_archive(tmp_path: Path):
    np.save(tmp_path / "mine.npy", np.zeros(3))
    with pytest.raises(BadData, match="cannot be read"):
        npz.load(tmp_path / "mine.npy", seed=0)
