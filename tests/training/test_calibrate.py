"""Temperatures and outlooks: right where the truth is known, sane where the samples tell little."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.calibrate import BAND_SAMPLES, PSEUDO_SAMPLES, band_edges, fit_temperature, outlook
from training.evaluate import scores


def drawn(samples: int, temperature: float, seed: int = 0, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from softmax(logits / temperature)."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=4 * temperature, size=(samples, classes))
    y = (logits / temperature + random.gumbel(size=logits.shape)).argmax(axis=1)
    return logits.astype(np.float32), y


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_the_labels_were_drawn_with_is_found(temperature: float):
    logits, y = drawn(5000, temperature)
    assert fit_temperature(logits, y) == pytest.approx(temperature, rel=0.08)


def test_calibration_lowers_the_loss_and_the_calibration_error_of_new_samples():
    logits, y = drawn(2000, 3.0)
    found = fit_temperature(logits[:500], y[:500])
    before, after = scores(logits[500:], y[500:]), scores(logits[500:] / found, y[500:])
    assert after.nll < before.nll
    assert after.ece < before.ece / 2
    assert after.brier < before.brier


def test_a_split_that_is_fitted_perfectly_gives_no_absurd_temperature():
    """The likelihood alone would go to 0."""
    logits = np.eye(3, dtype=np.float32)[np.arange(150) % 3] * 6
    assert 0.4 < fit_temperature(logits, logits.argmax(axis=1)) < 1


@pytest.mark.parametrize("right", [True, False])
def test_a_few_samples_hardly_move_the_temperature(right: bool):
    """On two samples the likelihood alone would go to one end or to the other."""
    logits = np.array([[2.0, 0, 0], [0, 2.0, 0]], np.float32)
    y = logits.argmax(axis=1) if right else logits.argmin(axis=1)
    assert 0.7 < fit_temperature(logits, y) < 2
    assert fit_temperature(logits[:0], y[:0]) == pytest.approx(1, abs=1e-3), "none at all"


def test_samples_of_which_all_are_wrong_flatten_the_confidence():
    logits = np.eye(3, dtype=np.float32)[np.arange(300) % 3] * 6
    assert fit_temperature(logits, (logits.argmax(axis=1) + 1) % 3) > 5


def logits_of(confidences: np.ndarray, answers: np.ndarray, classes: int = 4) -> np.ndarray:
    """Logits whose softmax gives each answer exactly that probability."""
    others = (1 - confidences) / (classes - 1)
    probabilities = np.repeat(others[:, None], classes, axis=1)
    probabilities[np.arange(len(answers)), answers] = confidences
    return np.log(probabilities)


def test_outlook_by_hand():
    """60 samples: half of them at 0.5, of which the first prefix has 9 right, half at 0.9, of which it has 27."""
    confidence = np.repeat([0.5, 0.9], 30)
    y = np.zeros(60, int)
    first = np.repeat([0, 1, 0, 1], [9, 21, 27, 3])
    second = np.repeat([0, 1, 0, 1], [15, 15, 24, 6])
    prefixes = [logits_of(confidence, first), logits_of(np.full(60, 0.8), second)]
    low, high = outlook(prefixes, [1, 1], y)
    assert (low.up_to, low.share, high.up_to, high.share) == (pytest.approx(0.5), 0.5, 1, 0.5)
    assert low.accuracy == pytest.approx([(9 + 20 * 0.5) / 50, (15 + 20 * 0.8) / 50])
    assert PSEUDO_SAMPLES == 20
    pooled = ((27 + 20 * 0.9) + (24 + 20 * 0.8)) / 100
    assert high.accuracy == pytest.approx([pooled, pooled]), "a fall is pooled away"


def test_outlook_reads_the_calibrated_confidence():
    confidence, y = np.repeat([0.5, 0.9], 30), np.zeros(60, int)
    logits = logits_of(confidence, y)
    assert outlook([2 * logits], [2.0], y) == outlook([logits], [1.0], y)


def test_the_estimate_is_near_the_truth_with_250_samples():
    """Three prefixes of growing skill: the true accuracy of a band is its mean confidence."""
    random = np.random.default_rng(1)
    first, y = drawn(250, 1.0, seed=1, classes=3)
    first = first / 3  # less certain, and drawn again so that it stays calibrated
    y = (first + random.gumbel(size=first.shape)).argmax(axis=1)
    better = first + 2.0 * np.eye(3)[y]
    bands = outlook([first, better], [1.0, 1.0], y)
    assert len(bands) == 250 // BAND_SAMPLES
    edges = [0, *(band.up_to for band in bands)]
    for low, band in zip(edges, bands, strict=False):
        assert max(low, 1 / 3) - 0.12 < band.accuracy[0] < band.up_to + 0.12
    gains = [band.accuracy[1] - band.accuracy[0] for band in bands]
    assert gains[0] > 0.2
    assert 0 <= gains[-1] < 0.1, "little to gain for those who are certain"


@given(
    samples=st.integers(1, 120),
    classes=st.integers(2, 4),
    depths=st.integers(1, 4),
    scale=st.sampled_from([0.0, 0.5, 5.0, 500.0]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_an_outlook_never_falls_and_its_shares_sum_to_1(samples: int, classes: int, depths: int, scale: float, seed):
    random = np.random.default_rng(seed)
    y = random.integers(classes, size=samples)
    prefixes = [random.normal(scale=scale, size=(samples, classes)).astype(np.float32) for _ in range(depths)]
    bands = outlook(prefixes, [1.0] * depths, y)
    assert sum(band.share for band in bands) == pytest.approx(1)
    assert all(band.share > 0 for band in bands)
    edges = [band.up_to for band in bands]
    assert edges == sorted(set(edges))
    assert edges[-1] == 1
    for band in bands:
        assert len(band.accuracy) == depths
        assert list(band.accuracy) == sorted(band.accuracy)


def test_equal_confidences_are_one_band():
    assert band_edges(np.full(200, 0.7)).tolist() == [1]
    assert band_edges(np.repeat([0.7, 1.0], 100)).tolist() == [0.7, 1]
    assert len(band_edges(np.linspace(0.2, 0.99, 2000))) == 10
