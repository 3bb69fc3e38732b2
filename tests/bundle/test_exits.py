from __future__ import annotations

import numpy as np
import pytest

from bundle.exits import confidence, may_leave, members_used

LOGITS = np.log(np.array([[0.8, 0.1, 0.1], [0.4, 0.3, 0.3], [0.1, 0.3, 0.6]], np.float32))


def test_confidence_is_the_largest_calibrated_probability():
    assert confidence(LOGITS, 1) == pytest.approx([0.8, 0.4, 0.6])
    square = np.array([0.8, 0.4, 0.6]) ** 0.5
    others = np.array([2 * 0.1**0.5, 2 * 0.3**0.5, 0.1**0.5 + 0.3**0.5])
    assert confidence(LOGITS, 2) == pytest.approx(square / (square + others))


def test_confidence_does_not_overflow_and_does_not_see_a_shift():
    assert confidence(np.array([[2000.0, 0.0], [3000.0, 3000.0]], np.float32), 0.5) == pytest.approx([1.0, 0.5])
    assert confidence(LOGITS + 90, 1) == pytest.approx(confidence(LOGITS, 1), abs=1e-5)


def test_a_sample_leaves_at_its_threshold_and_not_below():
    exactly = float(confidence(LOGITS, 1)[2])
    assert may_leave(LOGITS, 1, exactly).tolist() == [True, False, True]
    assert may_leave(LOGITS, 1, np.nextafter(exactly, 1)).tolist() == [True, False, False]
    assert not may_leave(LOGITS, 1, None).any()


def test_each_sample_leaves_after_the_first_prefix_that_lets_it():
    prefixes = [LOGITS, LOGITS[::-1], LOGITS]
    assert members_used(prefixes, [1, 1, 1], [0.7, 0.5]).tolist() == [1, 3, 2]
    assert members_used(prefixes, [1, 1, 1], [None, 0.5]).tolist() == [2, 3, 2]
    assert members_used(prefixes, [9, 1, 1], [0.7, None]).tolist() == [3, 3, 3]
    assert members_used(prefixes[:1], [1], []).tolist() == [1, 1, 1]


def test_a_rule_of_another_ensemble_is_refused():
    with pytest.raises(ValueError, match="zip"):
        members_used([LOGITS, LOGITS], [1, 1], [0.5, 0.5])
