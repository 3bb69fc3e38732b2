from __future__ import annotations

from pathlib import Path

import pytest

from bundle import Bundle
from service.engine.cuda import DeviceExecutor
from service.engine.execution import Execution, hindrance, judge
from service.engine.member_cost import MemberCost
from service.engine.providers import CPU
from service.engine.race import MARGIN, MIN_RUNS, UNCOUNTED_HEATS, Race
from service.engine.shared_cost import SharedCost
from service.engine.step import Step
from tests.fakes import FakeClock, TimedExecutor, WideExecutor
from tests.tiny_dag import write_dag


@pytest.fixture
def apart(models: Path) -> Bundle:
    return write_dag(models, [[], [], [], []])


def raced(bundle: Bundle, wave_s: float, largest: int = 1) -> tuple[Race, WideExecutor]:
    """Members take 100 ms a row; the wave `wave_s` a row, from four rows on 1 s a row."""
    clock = FakeClock()

    def seconds(step: Step) -> float:
        if step.width == 1:
            return 0.1 * step.rows
        return (wave_s if step.rows < 4 else 1.0) * step.rows

    executor = WideExecutor(clock, seconds)
    executor.load("tiny/1", bundle)
    costs = [
        MemberCost({1: [0.1]}, 0.95),
        SharedCost({1: [0.1]}, {1: [0.1]}, 0.95),
        *[MemberCost({1: [0.1]}, 0.95)] * 2,
    ]
    race = Race(executor, executor.lanes, "tiny/1", range(1, 4), costs, largest, clock)
    while race.advance() is not None:
        pass
    return race, executor


def test_it_measures_both_ways_in_turns(apart: Bundle):
    race, executor = raced(apart, 0.2)
    (heat,) = race.heats()
    assert (heat.rows, heat.together_s, heat.one_by_one_s) == (1, pytest.approx(0.2), pytest.approx(0.3))
    order = [(step.member, step.width) for step in executor.steps]
    assert order == [(1, 3)] * UNCOUNTED_HEATS + [(1, 3), (1, 1), (2, 1), (3, 1)] * MIN_RUNS
    assert {(step.member, step.on_one_thread) for step in executor.steps if step.width == 1} == {
        (1, True),
        (2, False),
        (3, False),
    }, "as they would run in turn"


@pytest.mark.parametrize(
    ("wanted", "wave_s", "used"),
    [
        ("auto", 0.15, (1, 2)),
        ("auto", 0.3 * (1 - MARGIN) - 0.001, (1, 2)),
        ("auto", 0.3 * (1 - MARGIN) + 0.001, ()),
        ("auto", 0.4, ()),
        ("parallel", 0.4, (1, 2, 4)),
    ],
)
def test_auto_uses_a_wave_at_the_batch_sizes_where_it_wins(
    apart: Bundle, wanted: Execution, wave_s: float, used: tuple[int, ...]
):
    race, _ = raced(apart, wave_s, largest=4)
    verdict = judge(wanted, [race])
    assert [one.used for one in verdict.waves] == [used]
    assert verdict.parallel == bool(used)
    assert ("one after another" in verdict.reason) == (not used)
    assert "members 1, 2, 3 side by side and in turn:" in str(verdict.waves[0])


def test_what_hinders_is_said(apart: Bundle, tiny: Bundle):
    clock = FakeClock()
    lanes, plain = WideExecutor(clock, lambda _: 0.0), TimedExecutor(clock, lambda _: 0.0)
    device = DeviceExecutor(CPU, "cpu")
    device.provider = "CUDAExecutionProvider"
    assert hindrance("auto", apart.manifest, lanes) is None
    assert hindrance("parallel", apart.manifest, lanes) is None
    assert "ANYTIME_EXECUTION" in hindrance("sequential", apart.manifest, lanes)
    assert "no two" in hindrance("parallel", tiny.manifest, lanes)
    assert "ANYTIME_CPU_THREADS" in hindrance("parallel", apart.manifest, plain)
    assert "CUDAExecutionProvider" in hindrance("parallel", apart.manifest, device)
