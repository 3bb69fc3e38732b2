from __future__ import annotations

import pytest

from service.engine.reserve import MEMORY_S, SHARE_OF_BUDGET, UNKNOWN_S, WINDOW_ANSWERS, WINDOW_LATELY, Reserve

LEAST_S = 0.002


@pytest.fixture
def reserve() -> Reserve:
    return Reserve(LEAST_S)


@pytest.fixture
def taught(reserve: Reserve) -> Reserve:
    """A window of fast answers has been seen."""
    for _ in range(WINDOW_ANSWERS):
        reserve.observe(0.0005, now=1.0)
    return reserve


def test_never_less_than_the_operator_asks_for(taught: Reserve):
    assert taught.seconds(now=1.0) == LEAST_S
    assert taught.seconds(now=1.0, budget_s=0.001) == LEAST_S


def test_more_until_enough_is_known(reserve: Reserve):
    assert reserve.seconds(now=0.0) == UNKNOWN_S
    for _ in range(WINDOW_ANSWERS - 1):
        reserve.observe(0.0005, now=1.0)
    assert reserve.seconds(now=1.0) == UNKNOWN_S
    reserve.observe(0.0005, now=1.0)
    assert reserve.seconds(now=1.0) == LEAST_S


def test_a_busy_loop_is_followed_and_forgotten(reserve: Reserve):
    for answer in range(WINDOW_ANSWERS):
        reserve.observe(0.001 if answer % 10 else 0.015, now=1.0)
    assert reserve.seconds(now=1.0) == pytest.approx(0.015)
    assert reserve.seconds(now=1.0 + MEMORY_S + 0.1) == UNKNOWN_S


def test_two_in_a_thousand_are_followed_and_one_is_not(taught: Reserve):
    taught.observe(0.03, now=1.0)
    assert taught.seconds(now=1.0) == LEAST_S
    taught.observe(0.02, now=1.0)
    assert taught.seconds(now=1.0) == pytest.approx(0.02)


def test_of_who_has_no_answer_what_most_answers_need_is_kept_back(reserve: Reserve):
    assert reserve.least_s(1.0) == LEAST_S
    for answer in range(WINDOW_LATELY):
        reserve.observe(0.003 if answer % 10 else 0.02, now=1.0)
    assert reserve.least_s(1.0) == pytest.approx(0.003)
    assert reserve.seconds(1.0) == pytest.approx(0.02)
    assert reserve.least_s(1.0 + MEMORY_S + 0.1) == LEAST_S


def test_timers_that_come_late_are_kept_back_too(taught: Reserve):
    assert taught.seconds(now=1.0, late_s=0.004) == pytest.approx(0.0045)


@pytest.mark.parametrize("work_s", [0.0001, 0.003, 0.01, 1.0])
@pytest.mark.parametrize("late_s", [0.0, 0.002, 5.0])
def test_the_least_budget_leaves_time_for_the_work(taught: Reserve, work_s: float, late_s: float):
    budget_s = taught.budget_for(work_s, 1.0, late_s)
    assert budget_s - taught.seconds(1.0, budget_s, late_s) == pytest.approx(work_s)


def test_a_stall_does_not_take_a_short_deadline_whole(taught: Reserve):
    taught.observe(0.5, now=1.0)
    taught.observe(0.5, now=1.0)
    assert taught.seconds(now=1.0, budget_s=0.02, late_s=0.1) == pytest.approx(0.02 * SHARE_OF_BUDGET)
    assert taught.seconds(now=1.0, budget_s=10.0) == pytest.approx(0.5)
