from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.cost import CostModel
from service.engine.mandatory import PATIENCE_S
from service.engine.scheduler import REHEARSAL_INTERVAL_S, Scheduler
from service.engine.step import Settled, Step
from service.engine.ticket import Exit, StoppedBy, Ticket
from tests.fakes import costs, profile, ticket

NOW = 1000.0


def scheduler(*seconds: float, per_row: float = 0.0, max_batch_rows: int = 8) -> Scheduler:
    return Scheduler(costs(*seconds or (0.010, 0.010, 0.010), per_row=per_row), max_batch_rows)


def run(engine: Scheduler, step: Step, now: float) -> None:
    for one in step.tickets:
        one.depth = step.member + 1
        one.outlook = one.profile.after(one.depth, [0.5] * one.rows)
    engine.complete(step.tickets, now)


def settled(engine: Scheduler) -> list[tuple[Ticket, StoppedBy]]:
    return [(one.ticket, one.stopped_by) for one in engine.take_settled()]


def test_a_lone_request_runs_all_members_in_order():
    engine, one = scheduler(), ticket()
    engine.admit(one, NOW)
    members = []
    while (step := engine.next_step(NOW)) is not None:
        members.append(step.member)
        run(engine, step, NOW)
    assert members == [0, 1, 2]
    assert settled(engine) == [(one, StoppedBy.COMPLETE)]


def test_max_members_stops_before_the_end():
    engine, one = scheduler(), ticket(limit=2)
    engine.admit(one, NOW)
    for _ in range(2):
        run(engine, engine.next_step(NOW), NOW)
    assert settled(engine) == [(one, StoppedBy.MAX_MEMBERS)]
    assert engine.next_step(NOW) is None


def test_a_first_member_that_cannot_fit_is_never_started():
    engine, one = scheduler(0.010), ticket(budget_s=0.009)
    engine.admit(one, NOW)
    assert settled(engine) == [(one, StoppedBy.DEADLINE)]


def test_a_member_that_would_end_late_is_not_started():
    engine, one = scheduler(0.010, 0.010, 0.010), ticket(budget_s=0.025)
    engine.admit(one, NOW)
    run(engine, engine.next_step(NOW), NOW + 0.010)
    run(engine, engine.next_step(NOW + 0.010), NOW + 0.020)
    assert settled(engine) == [(one, StoppedBy.DEADLINE)]
    assert one.depth == 2


def test_waiting_too_long_settles_instead_of_starting():
    engine, one = scheduler(0.010), ticket(budget_s=0.050)
    engine.admit(one, NOW)
    assert engine.next_step(NOW + 0.045).tickets == (), "only a rehearsal, on nobody's rows"
    assert settled(engine) == [(one, StoppedBy.DEADLINE)]


def test_first_members_come_before_refinements():
    engine, started, fresh = scheduler(), ticket(budget_s=0.2, seed=1), ticket(budget_s=5.0, seed=2)
    engine.admit(started, NOW)
    run(engine, engine.next_step(NOW), NOW)
    engine.admit(fresh, NOW)
    step = engine.next_step(NOW)
    assert (step.member, step.tickets) == (0, (fresh,))


def test_the_earliest_deadline_is_first():
    engine = scheduler(max_batch_rows=1)
    late, soon, never = ticket(budget_s=0.9, seed=1), ticket(budget_s=0.1, seed=2), ticket(seed=3)
    for one in (late, soon, never):
        engine.admit(one, NOW)
    assert [engine.next_step(NOW).tickets for _ in range(3)] == [(soon,), (late,), (never,)]


def test_a_request_without_a_deadline_is_not_starved_by_a_stream_of_deadlines():
    engine = scheduler(0.010, max_batch_rows=1)
    patient = ticket(members=1, seed=1)
    engine.admit(patient, NOW)
    now, served = NOW, []
    while patient not in served:
        for seed in (2, 3):
            engine.admit(ticket(arrived=now, budget_s=0.5, members=1, seed=seed), now)
        step = engine.next_step(now)
        served += step.tickets
        now += 0.010
        run(engine, step, now)
        assert now < NOW + PATIENCE_S + 0.5, "starved"


def test_a_request_without_a_deadline_is_finished_behind_a_stream_of_better_work():
    # The stream's refinements alone would fill the device, and each is worth more.
    engine = scheduler(0.001, 0.010, 0.010, max_batch_rows=1)
    patient = ticket(profile=profile(0.9, 0.9001, 0.9002), seed=1)
    engine.admit(patient, NOW)
    now = NOW
    while patient.depth < 3:
        engine.admit(ticket(arrived=now, budget_s=0.025, profile=profile(0.5, 0.8, 0.9), seed=2), now)
        step = engine.next_step(now)
        now += 0.010 if step.member else 0.001
        run(engine, step, now)
        engine.take_settled()
        assert now < NOW + PATIENCE_S + 0.2, "starved"
    assert now > NOW + PATIENCE_S / 2, "it was the better work that came first"


def test_the_optional_step_that_gains_most_per_second_is_first():
    engine = scheduler(max_batch_rows=1)
    sure, unsure = ticket(budget_s=1.0, seed=1), ticket(budget_s=1.0, seed=2)
    for one in (sure, unsure):
        one.depth, one.outlook = 1, ((0.98, 0.985, 0.99) if one is sure else (0.5, 0.7, 0.8))
    engine.complete([sure, unsure], NOW)
    assert engine.next_step(NOW).tickets == (unsure,)


def test_priority_outweighs_gain():
    engine = scheduler(max_batch_rows=1)
    ordinary, preferred = ticket(budget_s=1.0, seed=1), ticket(budget_s=1.0, seed=2, priority=2)
    for one in (ordinary, preferred):
        one.depth, one.outlook = 1, ((0.5, 0.6, 0.7) if one is preferred else (0.5, 0.75, 0.8))
    engine.complete([ordinary, preferred], NOW)
    assert engine.next_step(NOW).tickets == (preferred,)


def test_a_large_last_member_is_run_at_once_where_there_is_no_time_for_those_between():
    teacher = profile(0.88, 0.90, 0.96, jumps=True)
    for budget_s, member in ((0.050, 1), (0.028, 2), (0.020, 1)):
        # One after the other they take 1 + 10 + 25 ms; without the one between, 26.
        engine, one = scheduler(0.001, 0.010, 0.025), ticket(budget_s=budget_s, profile=teacher)
        engine.admit(one, NOW)
        run(engine, engine.next_step(NOW), NOW + 0.001)
        assert engine.next_step(NOW + 0.001).member == member, budget_s
    reads = profile(0.88, 0.90, 0.96, jumps=False)
    engine, one = scheduler(0.001, 0.010, 0.025), ticket(budget_s=0.028, profile=reads)
    engine.admit(one, NOW)
    run(engine, engine.next_step(NOW), NOW + 0.001)
    assert engine.next_step(NOW + 0.001).member == 1, "a member that reads the others cannot do without them"


def test_a_long_step_comes_last_where_tight_requests_keep_coming():
    # Every 5 ms a request with 12 ms comes: a step of 40 ms would leave several of them without any answer.
    engine, now = scheduler(0.001, 0.002, 0.040, max_batch_rows=1), NOW
    teacher = profile(0.88, 0.90, 0.92, jumps=True)
    for seed in range(40):
        tight = ticket(arrived=now, budget_s=0.012, members=3, limit=1, seed=seed)
        engine.admit(tight, now)
        run(engine, engine.next_step(now), now + 0.001)
        now += 0.005
    loose, modest = ticket(arrived=now, budget_s=1.0, profile=teacher), ticket(arrived=now, budget_s=1.0, limit=2)
    loose.depth, loose.outlook = 2, (0.90, 0.92)
    modest.depth, modest.outlook = 1, (0.88, 0.8808, 0.8808)
    quiet = scheduler(0.001, 0.002, 0.040, max_batch_rows=1)
    quiet.complete([loose, modest], now)
    assert quiet.next_step(now).member == 2, "it gains more per second"
    engine.complete([loose, modest], now)
    assert engine.next_step(now).member == 1, "but not where it costs others their answer"
    assert engine.next_step(now).member == 2, "still the device never idles while somebody waits for it"


def test_a_minimum_of_members_is_as_urgent_as_a_first_member():
    engine = scheduler(max_batch_rows=1)
    started, demands = ticket(budget_s=0.2, seed=1), ticket(budget_s=5.0, seed=2, member_minimum=2)
    started.depth = demands.depth = 1
    started.outlook = demands.outlook = (0.5, 0.9, 0.95)
    engine.complete([started, demands], NOW)
    assert engine.next_step(NOW).tickets == (demands,)


def test_a_request_whose_rows_have_all_left_settles():
    engine = scheduler()
    one = ticket(rows=2, exit=Exit((0.5, 0.5), StoppedBy.EXIT_CONFIDENCE))
    engine.admit(one, NOW)
    (first,) = engine.next_step(NOW).tickets
    first.retain(np.array([], np.intp))
    engine.complete([first], NOW)
    assert settled(engine) == [(one, StoppedBy.EXIT_CONFIDENCE)]


def test_batches_are_formed_of_the_rows_that_have_not_left():
    engine = scheduler()
    several = [ticket(rows=3, budget_s=1.0, seed=seed) for seed in range(2)]
    for one in several:
        engine.admit(one, NOW)
    step = engine.next_step(NOW)
    assert step.rows == 6
    several[0].retain(np.array([1]))
    run(engine, step, NOW)
    assert engine.next_step(NOW).rows == 4


def test_one_models_batch_does_not_make_anothers_first_member_late():
    model_costs = costs(0.010, model="tiny/1", per_row=0.010)
    model_costs.add("large/2", costs(0.015)._members["tiny/1"])
    engine = Scheduler(model_costs, 8)
    small = [ticket(budget_s=0.5, members=1, seed=seed) for seed in range(3)]
    other = ticket(budget_s=0.036, members=1, model="large/2", seed=9)
    small[0].deadline = ticket(budget_s=0.030).deadline
    for one in (*small, other):
        engine.admit(one, NOW)
    assert engine.next_step(NOW).rows == 2, "three rows would take 30 ms, and the other needs 15 of its 36"
    assert engine.next_step(NOW + 0.020).tickets == (other,)


def test_requests_at_the_same_depth_share_a_step():
    engine = scheduler()
    together = [ticket(rows=2, seed=seed) for seed in range(3)]
    for one in together:
        engine.admit(one, NOW)
    step = engine.next_step(NOW)
    assert set(step.tickets) == set(together)
    assert step.rows == 6


def test_a_batch_ends_at_its_largest_size_and_nobody_is_lost():
    engine = scheduler(max_batch_rows=4)
    waiting = [ticket(rows=3, seed=seed) for seed in range(3)]
    for one in waiting:
        engine.admit(one, NOW)
    assert [engine.next_step(NOW).tickets for _ in range(3)] == [(one,) for one in waiting]


def test_a_request_larger_than_a_batch_is_a_step_of_its_own():
    engine, large = scheduler(max_batch_rows=4), ticket(rows=9)
    engine.admit(large, NOW)
    assert engine.next_step(NOW).rows == 9


def test_company_that_would_make_somebody_late_stays_out():
    # One row takes 10 ms and each further row 5 ms: with two in the batch, `tight` would be late.
    engine = scheduler(0.010, per_row=0.005)
    tight, loose = ticket(budget_s=0.012, members=1, seed=1), ticket(budget_s=1.0, members=1, seed=2)
    engine.admit(tight, NOW)
    engine.admit(loose, NOW)
    assert engine.next_step(NOW).tickets == (tight,)
    assert engine.next_step(NOW).tickets == (loose,)


def test_an_aged_request_does_not_pull_a_tighter_one_into_lateness():
    # Urgency is not the deadline: the request without a deadline is older, so it is taken first.
    engine = scheduler(0.010, per_row=0.005)
    aged = ticket(arrived=NOW - 2 * PATIENCE_S, members=1, seed=1)
    tight = ticket(budget_s=0.012, members=1, seed=2)
    for one in (aged, tight):
        engine.admit(one, NOW)
    assert engine.next_step(NOW).tickets == (aged,)


def test_a_cancelled_request_gets_no_further_step():
    engine, gone, stays = scheduler(max_batch_rows=1), ticket(seed=1), ticket(seed=2)
    engine.admit(gone, NOW)
    engine.admit(stays, NOW)
    engine.cancel(gone, StoppedBy.ABANDONED)
    assert settled(engine) == [(gone, StoppedBy.ABANDONED)]
    for _ in range(3):
        step = engine.next_step(NOW)
        assert step.tickets == (stays,)
        run(engine, step, NOW)
    assert engine.next_step(NOW) is None


def test_cancelling_twice_or_after_the_end_changes_nothing():
    engine, one = scheduler(), ticket(limit=1)
    engine.admit(one, NOW)
    run(engine, engine.next_step(NOW), NOW)
    engine.take_settled()
    engine.cancel(one, StoppedBy.ABANDONED)
    engine.cancel(one, StoppedBy.ABANDONED)
    assert settled(engine) == []


def test_a_failed_member_settles_its_step():
    engine, one = scheduler(), ticket()
    engine.admit(one, NOW)
    run(engine, engine.next_step(NOW), NOW)
    engine.fail(engine.next_step(NOW).tickets)
    assert settled(engine) == [(one, StoppedBy.MEMBER_FAILED)]
    assert one.depth == 1


def test_a_prediction_that_turned_work_away_is_rehearsed_when_idle():
    engine = scheduler(0.010, 0.010, 0.010)
    assert engine.wake_at() is None
    engine.admit(ticket(budget_s=0.001), NOW)
    step = engine.next_step(NOW)
    assert (step.member, step.tickets, step.rows) == (0, (), 1)
    assert engine.next_step(NOW) is None
    engine.admit(ticket(budget_s=0.001), NOW)
    assert engine.next_step(NOW) is None, "rehearsals are rare"
    assert engine.wake_at() == NOW + REHEARSAL_INTERVAL_S
    assert engine.next_step(NOW + REHEARSAL_INTERVAL_S).tickets == ()


def test_the_earlier_of_patience_and_rehearsal_wakes():
    engine = scheduler()
    engine.admit(ticket(budget_s=0.001), NOW)
    engine.next_step(NOW)
    engine.admit(ticket(arrived=NOW + 0.1, budget_s=0.001), NOW + 0.1)
    engine.admit(ticket(arrived=NOW + 0.1), NOW + 0.1)
    assert engine.wake_at() == NOW + REHEARSAL_INTERVAL_S < NOW + 0.1 + PATIENCE_S
    engine.admit(ticket(arrived=NOW - 0.2), NOW + 0.1)
    assert engine.wake_at() == NOW - 0.2 + PATIENCE_S < NOW + REHEARSAL_INTERVAL_S


def test_real_work_comes_before_a_rehearsal():
    engine, real = scheduler(), ticket(limit=1)
    engine.admit(ticket(budget_s=0.001), NOW)
    engine.admit(real, NOW)
    assert engine.next_step(NOW).tickets == (real,)


@dataclass
class Request:
    """A request of a random scenario, and what became of it."""

    ticket: Ticket
    cancel_at: float
    settled: list[Settled] = field(default_factory=list)


@st.composite
def scenarios(draw: st.DrawFn) -> list[Request]:
    requests = []
    for seed in range(draw(st.integers(1, 25))):
        budget = draw(st.none() | st.floats(0.001, 0.5))
        members = draw(st.integers(1, 4))
        limit = draw(st.integers(1, members))
        requests.append(
            Request(
                ticket(
                    rows=draw(st.integers(1, 10)),
                    arrived=NOW + draw(st.floats(0, 0.3)),
                    budget_s=budget,
                    members=members,
                    limit=limit,
                    member_minimum=draw(st.integers(1, limit)),
                    priority=draw(st.integers(0, 2)),
                    profile=profile(*(0.65 + 0.05 * k for k in range(members)), jumps=draw(st.booleans())),
                    model=draw(st.sampled_from(["small/1", "large/2"])),
                    seed=seed,
                ),
                cancel_at=draw(st.just(math.inf) | st.floats(NOW, NOW + 0.5)),
            )
        )
    return requests


def two_models() -> CostModel:
    model_costs = costs(0.003, 0.004, 0.005, 0.006, model="small/1", per_row=0.001)
    model_costs.add("large/2", costs(0.012, 0.012, 0.012, 0.012, per_row=0.002)._members["tiny/1"])
    return model_costs


MAX_BATCH_ROWS = 16


def check_step(step: Step, now: float, waiting: set[Ticket], model_costs: CostModel) -> None:
    assert set(step.tickets) <= waiting, "only requests that wait are run"
    assert all(one.model == step.model for one in step.tickets)
    # Profiles differ from request to request here, so each may come to the step in its own way.
    jumps = [one.profile.jumps and one.depth and step.member == one.members_total - 1 for one in step.tickets]
    assert all(jump or one.depth == step.member for one, jump in zip(step.tickets, jumps, strict=True))
    assert step.rows == sum(one.rows for one in step.tickets)
    assert step.rows <= MAX_BATCH_ROWS or len(step.tickets) == 1
    cost_s = model_costs.predict(step.model, step.member, step.rows, now)
    assert all(one.deadline.slack(now, cost_s) >= 0 for one in step.tickets), "nobody is predicted to be late"
    if all(one.depth >= one.member_minimum and one.deadline.at < math.inf for one in step.tickets):
        mandatory = [one for one in waiting if one.depth < one.member_minimum]
        alone = [model_costs.predict(one.model, one.depth, one.rows, now) for one in mandatory]
        assert all(one.deadline.slack(now, cost) < 0 for one, cost in zip(mandatory, alone, strict=True))


def simulate(requests: list[Request], speed: st.DataObject) -> float:
    """Drive the scheduler on a virtual clock, as the worker does; checks each step. Returns the end of time."""
    model_costs = two_models()
    engine = Scheduler(model_costs, MAX_BATCH_ROWS)
    by_ticket = {request.ticket: request for request in requests}
    arrivals = sorted(requests, key=lambda request: request.ticket.deadline.arrived)
    cancels = sorted((r for r in requests if r.cancel_at < math.inf), key=lambda request: request.cancel_at)
    waiting: set[Ticket] = set()
    now = NOW
    while arrivals or waiting:
        while arrivals and arrivals[0].ticket.deadline.arrived <= now:
            one = arrivals.pop(0).ticket
            waiting.add(one)
            engine.admit(one, now)
        while cancels and cancels[0].cancel_at <= now:
            engine.cancel(cancels.pop(0).ticket, StoppedBy.ABANDONED)
        collect(engine, by_ticket, waiting)
        step = engine.next_step(now)
        collect(engine, by_ticket, waiting)
        if step is None:
            if not waiting and not arrivals:
                break
            assert not waiting, "the device idles while somebody waits"
            now = max(now, arrivals[0].ticket.deadline.arrived)
            continue
        if not step.tickets:
            continue
        check_step(step, now, waiting, model_costs)
        now += model_costs.predict(step.model, step.member, step.rows, now) * speed.draw(st.floats(0.2, 1.0))
        assert all(one.deadline.slack(now) >= -1e-9 for one in step.tickets), "a member ended late"
        run(engine, step, now)
        collect(engine, by_ticket, waiting)
    return now


def collect(engine: Scheduler, by_ticket: dict[Ticket, Request], waiting: set[Ticket]) -> None:
    for one in engine.take_settled():
        by_ticket[one.ticket].settled.append(one)
        waiting.discard(one.ticket)


@settings(max_examples=200, deadline=None)
@given(scenarios(), st.data())
def test_any_traffic(requests: list[Request], speed: st.DataObject):
    simulate(requests, speed)
    for request in requests:
        (one,) = request.settled
        depth, limit, total = request.ticket.depth, request.ticket.member_limit, request.ticket.members_total
        assert depth <= limit
        match one.stopped_by:
            case StoppedBy.COMPLETE:
                assert depth == total
            case StoppedBy.MAX_MEMBERS:
                assert depth == limit < total
            case StoppedBy.DEADLINE:
                assert depth < limit
                assert request.ticket.deadline.answer_by < math.inf
            case StoppedBy.ABANDONED:
                assert request.cancel_at < math.inf
            case other:
                raise AssertionError(other)


@settings(max_examples=50, deadline=None)
@given(scenarios(), st.data())
def test_without_deadlines_everything_is_done(requests: list[Request], speed: st.DataObject):
    for request in requests:
        arrived = request.ticket.deadline.arrived
        request.ticket.deadline = ticket(arrived=arrived).deadline
        request.cancel_at = math.inf
    simulate(requests, speed)
    assert all(request.ticket.depth == request.ticket.member_limit for request in requests)


def test_a_batch_that_fits_but_for_rounding_is_not_formed():
    """At 1000 s, 0.03 s more is the deadline when added, and a hair too late when subtracted: one way must hold."""
    model_costs = costs(0.012, per_row=0.002)
    engine = Scheduler(model_costs, MAX_BATCH_ROWS)
    for _ in range(2):
        engine.admit(ticket(rows=5, arrived=NOW, budget_s=0.03, members=1), NOW)
    step = engine.next_step(NOW)
    assert step is not None
    cost_s = model_costs.predict(step.model, step.member, step.rows, NOW)
    assert all(one.deadline.slack(NOW, cost_s) >= 0 for one in step.tickets)


def test_a_request_that_fits_but_for_rounding_is_not_run():
    """As above, for one alone: 5 ms are due 5 ms after 1000 s when added, and a hair too late when subtracted."""
    model_costs = costs(0.003, per_row=0.001)
    engine = Scheduler(model_costs, MAX_BATCH_ROWS)
    one = ticket(rows=3, arrived=NOW, budget_s=0.005, members=1)
    assert NOW + model_costs.predict("tiny/1", 0, 3, NOW) <= one.deadline.answer_by
    assert one.deadline.slack(NOW, model_costs.predict("tiny/1", 0, 3, NOW)) < 0
    engine.admit(one, NOW)
    assert [(settled.ticket, settled.stopped_by) for settled in engine.take_settled()] == [(one, StoppedBy.DEADLINE)]
