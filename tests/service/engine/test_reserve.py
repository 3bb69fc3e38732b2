from __future__ import annotations

import pytest

from service.engine.reserve import MEMORY_S, WINDOW_ANSWERS, Reserve


def test_never_less_than_the_operator_asks_for():
    reserve = Reserve(least_s=0.002)
    assert reserve.seconds(now=0.0) == 0.002
    reserve.observe(0.0005, now=0.0)
    assert reserve.seconds(now=0.0) == 0.002


def test_a_busy_loop_is_followed_and_forgotten():
    reserve = Reserve(least_s=0.002)
    for answer in range(WINDOW_ANSWERS):
        reserve.observe(0.001 if answer % 10 else 0.015, now=1.0)
    assert reserve.seconds(now=1.0) == pytest.approx(0.015)
    assert reserve.seconds(now=1.0 + MEMORY_S + 0.1) == 0.002


def test_a_few_slow_answers_in_a_full_window_do_not_move_it():
    reserve = Reserve(least_s=0.002)
    for answer in range(WINDOW_ANSWERS):
        reserve.observe(0.5 if answer < 9 else 0.003, now=1.0)
    assert reserve.seconds(now=1.0) == pytest.approx(0.003)
