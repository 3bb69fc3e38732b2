"""Loaders of public archives, on tiny archives of the same layout: nothing lost, nothing mixed, clear words."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.training import publisher
from training import Data, Split
from training.data import cifar, daily_sports, log_mel, speech_commands
from training.errors import BadData
from training.networks import Normalise

# ---------------------------------------------------------------- CIFAR


def test_cifar10_parts_pixels_and_names(tmp_path: Path):
    files = publisher.cifar10_files(each=20)
    data = cifar.load(cifar.CIFAR10, publisher.tar_gz(tmp_path / "c.tar.gz", files), seed=0)
    assert [len(split) for split in data.splits().values()] == [90, 10, 20]
    assert data.classes[0] == "airplane"
    assert data.classes[9] == "truck"
    assert (data.input_shape, data.train.x.dtype) == ((3, 32, 32), np.uint8)
    assert list(np.bincount(data.validation.y)) == [1] * 10
    np.testing.assert_array_equal(data.test.x, publisher.images(data.test.y, seed=5))
    both = np.concatenate([data.train.x, data.validation.x]).reshape(100, -1)
    expected = np.concatenate([publisher.images(np.arange(20) % 10, number) for number in range(5)]).reshape(100, -1)
    assert {row.tobytes() for row in both} == {row.tobytes() for row in expected}, "each image in exactly one part"
    for split in data.splits().values():
        lit = split.x.min(axis=3)
        for bright, label in zip(lit, split.y, strict=True):
            assert (bright[label % 3, 3 * label : 3 * label + 3] == 255).all(), "labels stay with their images"


def test_cifar_validation_is_drawn_by_the_seed_and_the_test_part_is_not(tmp_path: Path):
    path = publisher.tar_gz(tmp_path / "c.tar.gz", publisher.cifar10_files())
    one, same, other = (cifar.load(cifar.CIFAR10, path, seed) for seed in (0, 0, 1))
    assert one.sha256() == same.sha256() != other.sha256()
    np.testing.assert_array_equal(one.test.x, other.test.x)


def test_cifar100_takes_the_fine_label(tmp_path: Path):
    path = publisher.tar_gz(tmp_path / "c.tar.gz", publisher.cifar100_files())
    data = cifar.load(cifar.CIFAR100, path, seed=0)
    assert [len(split) for split in data.splits().values()] == [900, 100, 100]
    assert data.classes[:2] == ("fine 0", "fine 1")
    np.testing.assert_array_equal(data.test.y, np.arange(100))
    np.testing.assert_array_equal(data.test.x, publisher.images(data.test.y, seed=1))


def changed(files: dict[str, bytes], name: str, content: bytes | None) -> dict[str, bytes]:
    files = {**files, name: content or b""}
    return {key: value for key, value in files.items() if key != name or content is not None}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("data_batch_3.bin", None, "lacks data_batch_3.bin in cifar-10-batches-bin: is it cifar-10-binary.tar.gz?"),
        (
            "data_batch_3.bin",
            b"\0" * 3072,
            "data_batch_3.bin has 3072 bytes, which is not a number of records of 3073.",
        ),
        ("test_batch.bin", b"", "test_batch.bin has 0 bytes"),
        ("test_batch.bin", b"\x0a" * 3073, "test y holds labels from 10 to 10, but there are 10 classes"),
        ("batches.meta.txt", b"cat\ndog\n", "batches.meta.txt names 2 classes instead of 10."),
    ],
    ids=["no file", "cut", "empty", "label", "names"],
)
def test_a_bad_cifar_archive_is_one_sentence(tmp_path: Path, name: str, content: bytes | None, sentence: str):
    files = changed(publisher.cifar10_files(), f"cifar-10-batches-bin/{name}", content)
    with pytest.raises(BadData) as caught:
        cifar.load(cifar.CIFAR10, publisher.tar_gz(tmp_path / "c.tar.gz", files), seed=0)
    assert sentence in str(caught.value)


# ---------------------------------------------------------------- Speech Commands


def slow_log_mel(clip: np.ndarray) -> np.ndarray:
    """The definition, sample by sample and bin by bin."""
    emphasised = [clip[0]] + [clip[n] - 0.97 * clip[n - 1] for n in range(1, len(clip))]
    emphasised += [0.0] * 400
    frames = []
    for start in range(0, 15681, 160):
        frame = [
            emphasised[start + n] * (0.54 - 0.46 * np.cos(2 * np.pi * n / 399)) if start + n < len(emphasised) else 0.0
            for n in range(400)
        ]
        frames.append(frame)
    mel = [n * (2595 * np.log10(1 + 8000 / 700)) / 33 for n in range(34)]
    corner = [int(np.floor(513 * (700 * (10 ** (m / 2595) - 1)) / 16000)) for m in mel]
    features = np.zeros((len(frames), 32))
    for row, frame in enumerate(frames):
        power = np.abs(np.fft.fft(frame, 512)) ** 2 / 512
        for filter_ in range(32):
            left, centre, right = corner[filter_ : filter_ + 3]
            energy = sum(power[k] * (k - left) / (centre - left) for k in range(left, centre))
            energy += sum(power[k] * (right - k) / (right - centre) for k in range(centre, right))
            features[row, filter_] = np.log((energy or np.finfo(float).eps) + 1e-10)
    return features


def test_log_mel_is_what_its_definition_says():
    random = np.random.default_rng(0)
    clips = (random.normal(size=(2, 16000)) * 2000).astype(np.int16)
    clips[1, :9000] = 0  # a short clip, padded
    found = log_mel.log_mel(clips)
    assert (found.shape, found.dtype) == ((2, 99, 32), np.float32)
    for clip, features in zip(clips, found, strict=True):
        expected = slow_log_mel(clip.astype(float))
        np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-4)
    assert found[1, 0, 0] == pytest.approx(np.log(np.finfo(float).eps + 1e-10)), "silence has a floor"


def test_the_last_frame_reaches_into_zeros():
    clip = np.zeros((1, 16000))
    clip[0, 15999] = 1000
    found = log_mel.log_mel(clip)[0]
    assert (found[98] > 0).all(), "sample 15999 is in the 99th frame, which begins at 15680"
    assert found[:97].max() < -20


def test_a_tone_is_loudest_in_its_own_filter():
    time = np.arange(16000) / 16000
    for hertz in (300, 1000, 4000):
        features = log_mel.log_mel((5000 * np.sin(2 * np.pi * hertz * time))[None])[0, 50]
        centre = log_mel.filterbank()[features.argmax()].argmax() * 16000 / 512
        assert abs(centre - hertz) < 0.15 * hertz


def test_google13_labels_and_official_lists(tmp_path: Path):
    files = publisher.speech_files(speakers=4)
    data = speech_commands.load(publisher.tar_gz(tmp_path / "s.tar.gz", files, prefix="./"))
    assert {name: len(split) for name, split in data.splits().items()} == {"train": 60, "validation": 30, "test": 30}
    assert (data.input_shape, data.train.x.dtype, data.sequences) == ((99, 32), np.float32, True)
    for split in data.splits().values():
        counts = np.bincount(split.y, minlength=13)
        assert counts[0] == 18 * counts[1], "eighteen of the thirty words are the others"
        assert set(counts[1:]) == {counts[1]}
    assert data.classes == ("other", *["go", "no", "on", "up", "bed", "cat", "dog", "off", "one", "six", "two", "yes"])
    # In the order of names: the test speaker's clips of bed, bird, cat, ...; each a tone of its word.
    words = sorted(speech_commands.KEYWORDS + speech_commands.OTHER_WORDS)
    assert [data.classes[label] for label in data.test.y[:3]] == ["bed", "other", "cat"]
    for position, word in enumerate(words):
        loudest = data.test.x[position, 60].argmax()
        centre = log_mel.filterbank()[loudest].argmax() * 16000 / 512
        assert abs(centre - (200 + 100 * position)) < 0.25 * (200 + 100 * position), word


def test_short_clips_have_their_silence_before_them(tmp_path: Path):
    data = speech_commands.load(publisher.tar_gz(tmp_path / "s.tar.gz", publisher.speech_files()))
    assert data.test.x[0, 0].max() < -20, "the test speaker speaks 14,000 samples"
    assert data.test.x[0, -2].max() > 5
    assert data.validation.x[0, 0].max() > 5, "the validation speaker all 16,000"


def test_features_are_computed_once_for_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = publisher.tar_gz(tmp_path / "s.tar.gz", publisher.speech_files())
    first = speech_commands.load(path)
    (kept,) = tmp_path.glob("s.tar.gz.features-*.npz")
    assert len(list(tmp_path.iterdir())) == 2, "nothing is left aside"
    with monkeypatch.context() as patch:
        patch.setattr(log_mel, "log_mel", None)  # whoever computes fails
        assert speech_commands.load(path).sha256() == first.sha256()
        publisher.tar_gz(path, publisher.speech_files(speakers=5))
        with pytest.raises(TypeError):
            speech_commands.load(path)
    assert len(speech_commands.load(path).train) > len(first.train), "another archive has features of its own"
    publisher.tar_gz(path, publisher.speech_files())
    kept.write_bytes(kept.read_bytes()[:1000])
    assert speech_commands.load(path).sha256() == first.sha256(), "a damaged file is computed again"


CLIP = "bed/00000000_nohash_0.wav"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("validation_list.txt", None, "lacks validation_list.txt: is it speech_commands_v0.01.tar.gz?"),
        ("testing_list.txt", b"bed/gone_nohash_0.wav\n", "lacks 1 clips that its lists name, such as bed/gone"),
        ("testing_list.txt", b"bed/00000002_nohash_0.wav", "bed/00000002_nohash_0.wav is on both lists"),
        ("backward/1_nohash_0.wav", publisher.wav(np.zeros(9)), "is of a word that version 0.01 does not have"),
        (CLIP, b"RIFF", f"{CLIP} is no WAV file"),
        (CLIP, publisher.wav(np.zeros(16001)), "is not up to one second of mono sound of 16 bit at 16000 Hz."),
        (CLIP, publisher.wav(np.zeros(8000), rate=8000), "is not up to one second of mono sound"),
        (CLIP, publisher.wav(np.zeros(8000), channels=2), "is not up to one second of mono sound"),
    ],
    ids=["no list", "not there", "on both", "word", "no wav", "long", "rate", "stereo"],
)
def test_a_bad_speech_archive_is_one_sentence(tmp_path: Path, name: str, content: bytes | None, sentence: str):
    files = changed(publisher.speech_files(), name, content)
    with pytest.raises(BadData) as caught:
        speech_commands.load(publisher.tar_gz(tmp_path / "s.tar.gz", files))
    assert sentence in str(caught.value)


# ---------------------------------------------------------------- Daily and Sports Activities


@pytest.fixture(scope="module")
def dsa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publisher.zipped(tmp_path_factory.mktemp("dsa") / "d.zip", publisher.daily_sports_files(segments=2))


def subjects(split: Split) -> set[int]:
    return {int(value) for value in split.x[:, 0, 1]}


def test_dsa19_is_split_by_subject_four_two_two(dsa: Path):
    data = daily_sports.load(dsa, seed=0)
    assert [len(split) for split in data.splits().values()] == [daily_sports.COPIES * 4 * 38, 2 * 38, 2 * 38]
    data = dataclasses.replace(data, train=Split(data.train.x[: 4 * 38], data.train.y[: 4 * 38]))  # as they are
    people = [subjects(split) for split in data.splits().values()]
    assert [len(group) for group in people] == [4, 2, 2]
    assert set.union(*people) == set(range(1, 9))
    assert (data.input_shape, data.train.x.dtype, data.sequences) == ((125, 45), np.float32, True)
    for split in data.splits().values():
        np.testing.assert_array_equal(split.y, np.floor(split.x[:, 0, 0]) - 1)
        assert set(split.y) == set(range(19))
        np.testing.assert_array_equal(split.x[:, :, 1] % 1, 0.25)
        np.testing.assert_array_equal(split.x[:, :, 2], np.float32(-0.15))
    assert data.classes[17] == "jumping"


def test_training_windows_come_again_displaced_as_a_whole(dsa: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(daily_sports, "TURN", 0.0)
    train, windows = daily_sports.load(dsa, seed=0).train, 4 * 38
    for copy in range(1, daily_sports.COPIES):
        part = slice(copy * windows, (copy + 1) * windows)
        np.testing.assert_array_equal(train.y[part], train.y[:windows])
        shift = train.x[part] - train.x[:windows]
        np.testing.assert_allclose(shift, np.broadcast_to(shift[:, :1], shift.shape), atol=1e-4)
        assert (shift[:, 0, 3:] == 0).all(), "channels that never change stay where they are"
        spread = shift[:, 0, 0].std() / train.x[:windows, :, 0].std()
        assert 0.8 * daily_sports.SPREAD < spread < 1.2 * daily_sports.SPREAD
    again = daily_sports.load(dsa, seed=0).train
    np.testing.assert_array_equal(again.x, train.x)


def test_a_unit_turns_as_a_whole():
    x = np.random.default_rng(0).normal(size=(400, daily_sports.STEPS, daily_sports.CHANNELS)).astype(np.float32)
    turned = daily_sports.turned(x, np.random.default_rng(1))
    assert (turned.shape, turned.dtype) == (x.shape, np.float32)
    before, after = (one.reshape(400, daily_sports.STEPS, 5, 3, 3) for one in (x, turned))
    for one, other in ((0, 0), (0, 1), (1, 2)):  # lengths of vectors, and angles between sensors of one unit
        products = [(of[:, :, :, one] * of[:, :, :, other]).sum(axis=-1) for of in (before, after)]
        np.testing.assert_allclose(*products, atol=1e-4)
    across = [(of[:, :, 0, 0] * of[:, :, 1, 0]).sum(axis=-1) for of in (before, after)]
    assert np.abs(across[0] - across[1]).max() > 0.1, "every unit turns on its own"
    turns = np.linalg.lstsq(before[0, :, 0, 0], after[0, :, 0, 0], rcond=None)[0]
    np.testing.assert_allclose(turns @ turns.T, np.eye(3), atol=1e-4)
    assert np.linalg.det(turns) == pytest.approx(1, abs=1e-4), "and no axis is mirrored"
    np.testing.assert_array_equal(daily_sports.turned(x, np.random.default_rng(1)), turned)
    assert np.abs(daily_sports.turned(x, np.random.default_rng(2)) - turned).max() > 0.1


def test_the_angles_are_as_large_as_said():
    x = np.zeros((300, daily_sports.STEPS, daily_sports.CHANNELS), np.float32)
    x[:, :3] = np.tile(np.eye(3), 15)
    turned = daily_sports.turned(x, np.random.default_rng(0))[:, :3].reshape(300, 3, 5, 3, 3)
    cosines = (np.einsum("ntust->nus", turned) - 1) / 2  # of step t and axis t: the trace
    angles = np.arccos(np.clip(cosines, -1, 1))
    assert np.sqrt((angles**2).mean()) == pytest.approx(daily_sports.TURN, rel=0.1)


def test_dsa19_seeds_are_permutations_of_the_subjects(dsa: Path):
    orders = [tuple(daily_sports.permuted_subjects(seed)) for seed in range(6)]
    assert all(sorted(order) == list(range(1, 9)) for order in orders)
    assert len(set(orders)) > 1
    assert orders[0] == tuple(daily_sports.permuted_subjects(0))
    data = daily_sports.load(dsa, seed=3)
    assert subjects(data.test) == set(orders[3][6:])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data/a01/p1/s01.txt": b"1,2\n3,4\n"}, "data/a01/p1/s01.txt has shape (2, 2), but must be (125, 45)."),
        ({"data/a01/p1/s01.txt": b"one,two\n"}, "data/a01/p1/s01.txt is not a table of numbers"),
        ({"data/a20/p1/s01.txt": publisher.segment(20, 1)}, "an activity or a subject that the data set does not have"),
        ({"data/a01/p9/s01.txt": publisher.segment(1, 9)}, "an activity or a subject that the data set does not have"),
        (
            {"data/a01/p1/s01.txt": publisher.segment(1, 1).replace(b"1.5,", b"nan,", 1)},
            "data/a01/p1/s01.txt holds NaN or infinity.",
        ),
    ],
    ids=["shape", "text", "activity", "subject", "nan"],
)
def test_a_bad_dsa_archive_is_one_sentence(tmp_path: Path, changes: dict[str, bytes], sentence: str):
    path = publisher.zipped(tmp_path / "d.zip", {**publisher.daily_sports_files(), **changes})
    with pytest.raises(BadData) as caught:
        daily_sports.load(path, seed=0)
    assert sentence in str(caught.value)


def test_a_subject_that_is_missing_is_one_sentence(tmp_path: Path):
    files = {name: content for name, content in publisher.daily_sports_files().items() if "/p7/" not in name}
    with pytest.raises(BadData, match=r"has no segments data/aXX/pY/sZZ\.txt of subject 7"):
        daily_sports.load(publisher.zipped(tmp_path / "d.zip", files), seed=0)
    with pytest.raises(BadData, match=r"holds no segments .*: is it daily\+and\+sports"):
        daily_sports.load(publisher.zipped(tmp_path / "e.zip", {"readme.txt": b""}), seed=0)


# ---------------------------------------------------------------- sequences


def test_each_feature_of_a_sequence_has_its_own_scale():
    x = np.random.default_rng(0).normal(size=(20, 7, 2)).astype(np.float32) * [1, 1000] + [0, 5000]
    normalise = Normalise.of(x, sequences=True)
    assert normalise.mean.shape == (1, 2)
    np.testing.assert_allclose(normalise.mean.numpy()[0], x.mean(axis=(0, 1)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(1 / normalise.scale.numpy()[0], x.std(axis=(0, 1)), rtol=1e-5)
    assert Normalise.of(x).mean.shape == (1, 1), "an image has one"


def test_sequences_are_steps_of_features():
    split = Split(np.zeros((4, 3), np.float32), np.array([0, 1, 0, 1]))
    with pytest.raises(BadData, match=r"Sequences must be samples \(steps, features\), not of shape \[3\]"):
        Data(train=split, validation=split, test=split, classes=("a", "b"), sequences=True)
