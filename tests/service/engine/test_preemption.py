"""Who may have a running step given up, and what becomes of those who were in it."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from service.engine.halt import Halt
from service.engine.plan import reach
from service.engine.preemption import HALT_S, WORTH, Preemption
from service.engine.scheduler import Scheduler
from service.engine.step import IDLE, Running, Step
from service.engine.ticket import StoppedBy, Ticket
from tests.fakes import costs, profile, ticket

NOW = 1000.0
FIRST_S, SMALL_S, LAST_S = 0.002, 0.002, 0.016
LADDER = profile(0.80, 0.85, 0.95, jumps=True)
COSTS = (FIRST_S, SMALL_S, LAST_S)
LAST_TOO = HALT_S + FIRST_S + LAST_S + 1e-4
"""A budget that has room for the last member if what runs is given up."""


def newcomer(budget_s: float | None, **changes: object) -> Ticket:
    return ticket(arrived=NOW, budget_s=budget_s, seed=9, **{"profile": LADDER, **changes})


def running(began_s_ago: float, *, gain: float = 0.05, budget_s: float | None = 1.0, priority: int = 0) -> Running:
    """The last member, on one request with a prefix."""
    one = ticket(arrived=NOW - began_s_ago, budget_s=budget_s, profile=LADDER, priority=priority)
    one.depth, one.outlook = 2, (0.9, 0.9 + gain)
    began = NOW - began_s_ago
    return Running(began + LAST_S, Step("tiny/1", 2, (one,), 1, halt=Halt()), began)


def given_up(what_runs: Running, one: Ticket) -> bool:
    halt = Preemption(costs(*COSTS)).halt(what_runs, one, NOW)
    assert halt is None or halt is what_runs.step.halt
    return halt is not None


@pytest.mark.parametrize(
    ("budget_s", "expected"),
    [(0.0019, 0.0), (0.0021, 0.80), (0.0041, 0.85), (0.0179, 0.85), (0.0181, 0.95), (None, 0.95)],
)
def test_a_request_reaches_the_best_depth_that_ends_in_time(budget_s: float | None, expected: float):
    assert reach(newcomer(budget_s), NOW, COSTS) == pytest.approx(expected)


def test_a_request_reaches_what_it_may_have():
    assert reach(newcomer(1.0, limit=2), NOW, COSTS) == pytest.approx(0.85)
    assert reach(newcomer(1.0, limit=2, priority=1), NOW, COSTS) == pytest.approx(2 * 0.85)
    assert reach(newcomer(0.003, member_minimum=2), NOW, COSTS) == 0.0, "with fewer there is no answer"
    assert reach(newcomer(0.019, member_minimum=2), NOW, COSTS) == pytest.approx(0.85), "2 + 2 + 16 ms are too many"
    started = newcomer(0.001)
    started.depth, started.outlook = 1, (0.7, 0.8, 0.9)
    assert reach(started, NOW, COSTS) == pytest.approx(0.7), "what it has"


def test_a_first_answer_is_waited_for_longer_than_a_better_one():
    one = newcomer(0.004)
    object.__setattr__(one.deadline, "answer_by", NOW + 0.0015)
    assert reach(one, NOW, COSTS) == pytest.approx(0.80), "by `last`; the second would have to end by `answer_by`"


@pytest.mark.parametrize(
    ("began_s_ago", "budget_s", "yields"),
    [
        (0.001, 0.010, True),
        (0.001, LAST_TOO, True),
        (0.001, 0.040, False),
        (0.001, None, False),
        (0.0152, 0.0035, False),
    ],
    ids=["no first answer else", "no last member else", "time for both", "no deadline", "over as soon"],
)
def test_a_step_is_given_up_for_who_would_lose_more_by_waiting(began_s_ago: float, budget_s: float, yields: bool):
    assert given_up(running(began_s_ago), newcomer(budget_s)) is yields


def test_what_has_been_worked_for_is_lost():
    """The last member instead of the second: 0.10 for the newcomer. Half of the step has been run."""
    assert given_up(running(0.008, gain=0.19 / WORTH), newcomer(LAST_TOO))
    assert not given_up(running(0.008, gain=0.21 / WORTH), newcomer(LAST_TOO))


def test_who_cannot_begin_anew_loses_all_of_it():
    began_s_ago, anew_s, gain = 0.001, HALT_S + FIRST_S + LAST_S, 0.11 / WORTH
    assert given_up(running(began_s_ago, gain=gain, budget_s=began_s_ago + anew_s + 1e-6), newcomer(LAST_TOO))
    assert not given_up(running(began_s_ago, gain=gain, budget_s=began_s_ago + anew_s - 1e-6), newcomer(LAST_TOO))


def test_priority_doubles_what_is_won_and_lost():
    what_runs = running(0.008, gain=0.15 / WORTH, priority=1)
    assert not given_up(what_runs, newcomer(LAST_TOO))
    assert given_up(what_runs, newcomer(LAST_TOO, priority=1))


def test_all_in_the_step_lose():
    what_runs = running(0.008, gain=0.15 / WORTH)
    assert given_up(what_runs, newcomer(LAST_TOO))
    pair = what_runs.step.tickets * 2
    assert not given_up(what_runs._replace(step=what_runs.step._replace(tickets=pair, rows=2)), newcomer(LAST_TOO))


def test_who_has_moved_on_loses_nothing():
    """The step has ended this moment: another thread has published already."""
    what_runs = running(0.008, gain=0.9)
    what_runs.step.tickets[0].depth, what_runs.step.tickets[0].outlook = 3, (0.95,)
    assert given_up(what_runs, newcomer(LAST_TOO))


def test_nothing_is_given_up_that_must_not_be():
    one = newcomer(0.010)
    assert given_up(running(0.001), one)
    what_runs = running(0.001)
    assert not given_up(IDLE, one)
    assert not given_up(what_runs._replace(step=what_runs.step._replace(halt=None)), one)
    assert not given_up(running(LAST_S + 0.001), one), "it should have ended: any moment now"


def test_who_goes_on_from_an_answer_waits():
    one = newcomer(0.010)
    one.resumes = newcomer(0.010)
    assert not given_up(running(0.001), one)


def test_a_chunk_of_a_stream_waits():
    """How many runs it needs is known between steps only."""
    one = newcomer(0.010)
    one.part = Mock()
    assert not given_up(running(0.001), one)


def test_optional_steps_can_be_given_up_and_mandatory_ones_cannot():
    engine, one = Scheduler(costs(*COSTS), 8), newcomer(1.0)
    engine.admit(one, NOW)
    mandatory = engine.next_step(NOW)
    assert (mandatory.member, mandatory.halt) == (0, None)
    one.depth, one.outlook = 1, (0.8, 0.85, 0.95)
    engine.complete([one], NOW)
    optional = engine.next_step(NOW)
    assert optional.halt is not None and not optional.halt.called
    engine.complete([one], NOW)
    again = engine.next_step(NOW)
    assert (again.member, again.tickets) == (optional.member, (one,))
    assert again.halt is not optional.halt, "that one has been called"


def test_a_wave_is_not_given_up():
    engine, one = Scheduler(costs(*COSTS, wave_s=0.003), 8), ticket(arrived=NOW, budget_s=1.0)
    one.depth, one.outlook = 1, (0.8, 0.85, 0.95)
    engine.complete([one], NOW)
    step = engine.next_step(NOW)
    assert (step.width, step.halt) == (2, None)


def test_who_has_no_time_left_keeps_the_answer_it_had():
    engine, one = Scheduler(costs(*COSTS), 8), newcomer(0.017)
    one.depth, one.outlook = 2, (0.85, 0.95)
    engine.complete([one], NOW)
    assert engine.next_step(NOW).tickets == (one,)
    engine.complete([one], NOW + 0.005)
    assert not engine.next_step(NOW + 0.005).tickets, "a rehearsal of what was turned away"
    assert [settled.stopped_by for settled in engine.take_settled()] == [StoppedBy.DEADLINE]


def test_a_halt_reaches_who_runs_whichever_is_first():
    heard: list[str] = []
    halt = Halt()
    halt.bind(lambda: heard.append("bound before"))
    halt()
    assert heard == ["bound before"]
    halt.bind(lambda: heard.append("bound after"))
    assert heard == ["bound before", "bound after"]
    assert halt.called
