from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import pytest

from service.engine.alarm import Alarms
from tests.fakes import FakeClock

pytestmark = pytest.mark.anyio


class Handle:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


@pytest.fixture
async def timers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, Callable[[], None], Handle]]:
    """What was set on the loop: delay, callback, handle."""
    found: list[tuple[float, Callable[[], None], Handle]] = []

    def call_later(delay: float, callback: Callable[[], None]) -> Handle:
        found.append((delay, callback, Handle()))
        return found[-1][2]

    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", call_later)
    return found


def ring(rung: list[float], clock: FakeClock) -> Callable[[], None]:
    return lambda: rung.append(clock.now())


async def test_a_timer_teaches_how_late_timers_come(timers: list):
    clock, rung = FakeClock(), list[float]()
    start, alarms = clock.now(), Alarms(clock)
    alarms.set(start + 1, start + 1, lambda: True, ring(rung, clock))
    delay, fire, _ = timers[0]
    assert delay == pytest.approx(1)
    clock.advance(1.25)
    fire()
    assert rung == [pytest.approx(start + 1.25)]
    assert alarms.late_s() == pytest.approx(0.25)


async def test_a_request_with_nothing_to_say_waits_until_it_is_due(timers: list):
    clock, rung = FakeClock(), list[float]()
    start, alarms = clock.now(), Alarms(clock)
    alarms.set(start + 0.75, start + 1, lambda: False, ring(rung, clock))
    clock.advance(timers[0][0])
    timers[0][1]()
    assert rung == []
    assert timers[1][0] == pytest.approx(0.25)
    clock.advance(0.25)
    timers[1][1]()
    assert rung == [pytest.approx(start + 1)]


async def test_a_request_with_something_to_say_is_ended_where_it_was_aimed_whatever_timers_have_done(timers: list):
    clock, rung = FakeClock(), list[float]()
    start, alarms = clock.now(), Alarms(clock)
    # A stall longer than the whole budget.
    alarms.rang(5.0)
    alarms.set(start + 0.75, start + 1, lambda: True, ring(rung, clock))
    assert timers[0][0] == pytest.approx(0.75)
    clock.advance(0.75)
    timers[0][1]()
    assert rung == [pytest.approx(start + 0.75)]


async def test_no_time_no_timer(timers: list):
    clock = FakeClock()
    alarm = Alarms(clock).set(math.inf, math.inf, lambda: True, lambda: None)
    assert timers == []
    alarm.cancel()


async def test_a_cancelled_alarm_cancels_its_timer(timers: list):
    clock = FakeClock()
    Alarms(clock).set(clock.now() + 1, clock.now() + 1, lambda: True, lambda: None).cancel()
    assert timers[0][2].cancelled


async def test_what_was_over_when_it_was_set_says_nothing_of_timers(timers: list):
    clock = FakeClock()
    alarms = Alarms(clock)
    alarms.set(clock.now() - 5, clock.now() - 5, lambda: True, lambda: None)
    assert timers[0][0] == 0
    timers[0][1]()
    assert alarms.late_s() == 0
