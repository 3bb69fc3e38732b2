from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from service.engine.ticket import Exit, Published, StoppedBy
from tests.fakes import ticket

A = np.array([[1.0, 5.0, 0.0]], np.float32)
B = np.array([[6.0, 0.0, 0.0]], np.float32)


def test_each_prefix_is_the_mean_so_far():
    one = ticket()
    one.publish(one.depth, A, "mean")
    np.testing.assert_array_equal(one.published.logits, A)
    one.publish(one.depth, B, "mean")
    np.testing.assert_array_equal(one.published.logits, (A + B) / 2)
    assert one.published.members == one.depth == 2
    assert [classes.tolist() for classes in one.classes_by_prefix] == [[1], [0]]


def test_a_replacing_member_is_the_answer():
    one = ticket()
    one.publish(one.depth, A, "mean")
    one.publish(one.depth, B, "replace")
    np.testing.assert_array_equal(one.published.logits, B)
    assert one.published.members == 2


def test_what_was_published_never_changes():
    one, buffer = ticket(), A.copy()
    one.publish(one.depth, buffer, "mean")
    first: Published = one.published
    buffer[:] = np.nan
    one.publish(one.depth, B, "mean")
    np.testing.assert_array_equal(first.logits, A)


def test_a_member_that_replaces_may_come_before_its_turn():
    one = ticket()
    one.publish(0, A, "mean")
    one.publish(2, B, "replace")
    np.testing.assert_array_equal(one.published.logits, B)
    assert one.published.members == one.depth == 3
    assert [None if classes is None else classes.tolist() for classes in one.classes_by_prefix] == [[1], None, [0]]


def test_rows_that_left_keep_the_answer_they_left_with():
    one = ticket(rows=3, exit=Exit((0.9, None), StoppedBy.EXIT_CONFIDENCE))
    first = np.eye(3, dtype=np.float32)
    one.publish(0, first, "mean")
    leaving = one.leaving(np.array([0.95, 0.5, 0.9]))
    assert leaving.tolist() == [True, False, True]
    one.retain(np.flatnonzero(~leaving))
    assert (one.rows, one.inputs.shape[0], one.total.shape) == (1, 1, (1, 3))
    one.publish(1, np.array([[3.0, 0.0, 0.0]], np.float32), "mean")
    assert one.leaving(np.array([1.0])) is None, "nobody leaves where there is no threshold"
    np.testing.assert_array_equal(one.published.logits, [first[0], [1.5, 0.5, 0.0], first[2]])
    assert one.published.members_by_row.tolist() == [1, 2, 1]
    assert one.published.members == 2


def test_nobody_leaves_before_the_mandatory_members_or_after_the_last():
    one = ticket(member_minimum=2, exit=Exit((0.5, 0.5), StoppedBy.EXIT_RISK))
    left = []
    for member in range(3):
        one.publish(member, A, "mean")
        left.append(one.leaving(np.array([0.99])) is not None)
    assert left == [False, True, False]


@pytest.mark.parametrize(
    ("depth", "changes", "over"),
    [
        (2, {}, True),
        (1, {}, False),
        (2, {"keep": True}, False),
        (2, {"exit": Exit((0.9, 0.9), StoppedBy.EXIT_CONFIDENCE)}, False),
    ],
)
def test_nothing_is_foreseen_for_who_is_over(depth: int, changes: dict[str, Any], over: bool):
    one = ticket()
    one.member_limit, one.depth = 2, depth
    for name, value in changes.items():
        setattr(one, name, value)
    assert one.is_over is over
