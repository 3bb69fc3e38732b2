from __future__ import annotations

import math

import pytest

from service.engine.deadline import Deadline, MonotonicClock


def test_the_engine_is_due_before_the_client():
    deadline = Deadline.after(arrived=100.0, budget_s=0.050, reserve_s=0.002)
    assert deadline.at == pytest.approx(100.050)
    assert deadline.answer_by == pytest.approx(100.048)


def test_slack_counts_the_work_still_to_do():
    deadline = Deadline.after(arrived=100.0, budget_s=0.050, reserve_s=0.0)
    assert deadline.slack(100.010) == pytest.approx(0.040)
    assert deadline.slack(100.010, cost_s=0.050) == pytest.approx(-0.010)


def test_no_budget_is_all_the_time_there_is():
    assert Deadline.after(100.0, None, 0.002).slack(1e9, cost_s=1e9) == math.inf


def test_the_clock_does_not_go_back():
    clock = MonotonicClock()
    assert clock.now() <= clock.now()
