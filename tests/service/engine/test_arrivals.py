"""What a step costs those to come, against the definition of it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine import arrivals
from service.engine.arrivals import CHANCE, MEMORY_S, REFRESH_ARRIVALS, WINDOW_ARRIVALS, Arrivals

EXPECTED = (0.0, 0.8, 0.85, 0.95)
SECONDS = [0.002, 0.002, 0.015]
TIMES = st.floats(0, 0.1)


@dataclass(frozen=True)
class Request:
    at: float
    slack_s: float

    def stakes(self) -> list[tuple[float, float]]:
        spare_s = self.slack_s - SECONDS[0]
        first = [(spare_s, EXPECTED[1])] if spare_s >= 0 else []
        last = [(spare_s - SECONDS[-1], CHANCE * (EXPECTED[-1] - EXPECTED[1]))] if spare_s >= SECONDS[-1] else []
        return first + last


def defined(requests: list[Request], duration_s: float) -> float:
    """Each loses what is at stake by arriving in the first `duration - spare` seconds of the step."""
    counted = [one for one in requests if one.stakes()][-WINDOW_ARRIVALS:]
    newest = counted[-1].at
    counted = [one for one in counted if one.at >= newest - MEMORY_S]
    span_s = max(newest - counted[0].at, 1e-3)
    stakes = [stake for one in counted for stake in one.stakes()]
    return sum(worth * max(0.0, duration_s - spare_s) for spare_s, worth in stakes) / span_s


def observe(engine: Arrivals, requests: list[Request]) -> None:
    for one in requests:
        engine.observe(one.at, one.slack_s, EXPECTED, SECONDS)


@st.composite
def traffic(draw: st.DrawFn) -> list[Request]:
    count = draw(st.integers(REFRESH_ARRIVALS, 2 * WINDOW_ARRIVALS))
    gaps = draw(st.sampled_from([0.0, 0.001, 0.1, 1.0]))
    slacks = draw(st.lists(TIMES, min_size=1, max_size=7))
    hard = draw(st.floats(SECONDS[0], 0.1))
    requests = [Request(gaps * index, slacks[index % len(slacks)]) for index in range(count)]
    # These alone can be enough to be counted.
    return requests + [Request(gaps * (count + index), hard) for index in range(REFRESH_ARRIVALS)]


@given(traffic(), st.lists(TIMES, min_size=1, max_size=5))
def test_a_step_costs_what_those_lose_who_cannot_wait_for_its_end(requests: list[Request], durations: list[float]):
    engine = Arrivals()
    observe(engine, requests)
    for duration_s in durations:
        assert engine.loss(duration_s) == pytest.approx(defined(requests, duration_s), rel=1e-6, abs=1e-9)


@given(traffic(), traffic(), TIMES)
def test_it_makes_no_difference_when_it_was_asked_before(first: list[Request], then: list[Request], asked_s: float):
    start = first[-1].at
    then = [Request(start + one.at, one.slack_s) for one in then]
    engine = Arrivals()
    observe(engine, first)
    engine.loss(asked_s)
    observe(engine, then)
    assert engine.loss(0.05) == pytest.approx(defined([*first, *then], 0.05), rel=1e-6, abs=1e-9)


def test_nothing_is_said_of_traffic_before_there_is_some():
    engine = Arrivals()
    observe(engine, [Request(0.01 * index, 0.02) for index in range(REFRESH_ARRIVALS - 1)])
    assert engine.loss(1.0) == 0.0


def test_nothing_is_added_up_while_everybody_can_wait(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(arrivals, "accumulate", None)
    engine = Arrivals()
    observe(engine, [Request(0.01 * index, 60.0) for index in range(10 * REFRESH_ARRIVALS)])
    assert engine.loss(0.05) == 0.0
