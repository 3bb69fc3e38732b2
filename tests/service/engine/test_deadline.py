from __future__ import annotations

import math
from unittest.mock import Mock

import pytest

from service.engine import deadline as module
from service.engine.deadline import MOMENT_S, Deadline, MonotonicClock


def test_the_engine_is_due_before_the_client():
    deadline = Deadline.after(arrived=100.0, budget_s=0.050, reserve_s=0.002)
    assert deadline.at == pytest.approx(100.050)
    assert deadline.answer_by == pytest.approx(100.048)


def test_slack_counts_the_work_still_to_do():
    deadline = Deadline.after(arrived=100.0, budget_s=0.050, reserve_s=0.0)
    assert deadline.slack(100.010) == pytest.approx(0.040)
    assert deadline.slack(100.010, cost_s=0.050) == pytest.approx(-0.010)


def test_no_budget_is_all_the_time_there_is():
    endless = Deadline.after(100.0, None, 0.002)
    assert endless.slack(1e9, cost_s=1e9) == math.inf
    assert endless.chance(1e9, cost_s=1e9)


@pytest.mark.parametrize(("least_s", "last"), [(0.001, 100.049), (0.005, 100.045), (0.009, 100.045), (None, 100.045)])
def test_a_first_answer_is_worth_trying_for_longer_never_for_less(least_s: float | None, last: float):
    deadline = Deadline.after(100.0, 0.050, 0.005, least_s)
    assert deadline.answer_by == pytest.approx(100.045)
    assert deadline.last == pytest.approx(last)
    assert deadline.chance(100.0, last - 100.0 - 1e-6)
    assert not deadline.chance(100.0, last - 100.0 + 1e-6)


def test_the_clock_does_not_go_back():
    clock = MonotonicClock()
    assert clock.now() <= clock.now()


@pytest.mark.parametrize(
    ("ago_s", "at"),
    [(0.0, 7.0), (0.25, 6.75), (-0.25, 7.0), (MOMENT_S, 7.0)],
    ids=["now", "a moment ago", "the wall clock was set back", "it was set on"],
)
def test_an_instant_of_the_wall_clock_is_found_on_this_one(monkeypatch: pytest.MonkeyPatch, ago_s: float, at: float):
    wall_ns = 1_700_000_000 * 10**9
    monkeypatch.setattr(module, "time", Mock(time_ns=lambda: wall_ns + round(ago_s * 1e9)))
    monkeypatch.setattr(MonotonicClock, "now", lambda _: 7.0)
    assert MonotonicClock().at_wall(wall_ns) == at
