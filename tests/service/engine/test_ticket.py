from __future__ import annotations

import numpy as np

from service.engine.ticket import Published
from tests.fakes import ticket

A = np.array([[1.0, 5.0, 0.0]], np.float32)
B = np.array([[6.0, 0.0, 0.0]], np.float32)


def test_each_prefix_is_the_mean_so_far():
    one = ticket()
    one.publish(A, "mean")
    np.testing.assert_array_equal(one.published.logits, A)
    one.publish(B, "mean")
    np.testing.assert_array_equal(one.published.logits, (A + B) / 2)
    assert one.published.members == one.depth == 2
    assert [classes.tolist() for classes in one.classes_by_prefix] == [[1], [0]]


def test_a_replacing_member_is_the_answer():
    one = ticket()
    one.publish(A, "mean")
    one.publish(B, "replace")
    np.testing.assert_array_equal(one.published.logits, B)
    assert one.published.members == 2


def test_what_was_published_never_changes():
    one, buffer = ticket(), A.copy()
    one.publish(buffer, "mean")
    first: Published = one.published
    buffer[:] = np.nan
    one.publish(B, "mean")
    np.testing.assert_array_equal(first.logits, A)
