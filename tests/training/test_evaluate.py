"""Measures of a prefix, by hand; and the picture made of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from bundle import Bundle
from bundle.reference import running_average
from tests.tiny import samples
from training.baselines import Point
from training.evaluate import brier, calibration_error, measure, negative_log_likelihood
from training.report import write_report

LOGITS = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]]))


def test_negative_log_likelihood_is_the_mean_in_nats():
    y = np.array([0, 0, 2])
    assert negative_log_likelihood(LOGITS, y) == pytest.approx(-(math.log(0.7) + math.log(0.1) + math.log(0.4)) / 3)
    assert negative_log_likelihood(LOGITS + 1000, y) == pytest.approx(negative_log_likelihood(LOGITS, y))


def test_calibration_error_is_the_gap_in_each_bin_weighted():
    assert calibration_error(LOGITS, np.array([0, 0, 2])) == pytest.approx((0.3 + 0.8 + 0.6) / 3)
    sure = np.log(np.array([[0.999, 0.001]] * 4))
    assert calibration_error(sure, np.array([0, 0, 0, 1])) == pytest.approx(0.249)
    assert calibration_error(1e6 * sure, np.array([0, 0, 0, 0])) == 0


def test_brier_is_the_squared_distance_from_the_one_hot_label():
    expected = (0.3**2 + 0.2**2 + 0.1**2 + 0.9**2 + 0.8**2 + 0.1**2 + 0.3**2 + 0.3**2 + 0.6**2) / 3
    assert brier(LOGITS, np.array([0, 0, 2])) == pytest.approx(expected)


def test_prefixes_are_measured_on_the_running_average(tiny: Bundle):
    x = samples(50)
    y = np.arange(50) % 3
    teacher_NL = np.random.default_rng(1).normal(size=(50, 3))
    served = list(running_average(tiny, x))
    prefixes = measure(served, y, teacher_NL, flops=[10, 20, 30], teacher_flops=100)
    assert [prefix.members for prefix in prefixes] == [1, 2, 3]
    assert [prefix.flops_fraction for prefix in prefixes] == pytest.approx([0.1, 0.3, 0.6])
    for prefix, logits_NL in zip(prefixes, served, strict=True):
        assert prefix.accuracy == pytest.approx(np.mean(logits_NL.argmax(1) == y))
        assert prefix.agreement == pytest.approx(np.mean(logits_NL.argmax(1) == teacher_NL.argmax(1)))


def test_the_picture_is_a_png_and_the_same_twice(tiny: Bundle, tmp_path: Path):
    points = [Point(70, 0.6), Point(140, 0.7)]
    pictures = []
    for name in ("a.png", "b.png"):
        write_report(tmp_path / "new" / name, tiny.manifest, points, points, 700)
        pictures.append((tmp_path / "new" / name).read_bytes())
    assert pictures[0].startswith(b"\x89PNG")
    assert pictures[0] == pictures[1]
    assert b"matplotlib" not in pictures[0].lower()
