"""Mandatory steps when not everybody can be served: fuller batches instead of the most urgent request."""

from __future__ import annotations

import numpy as np
import pytest

from service.engine.cost import CostModel
from service.engine.deadline import Deadline
from service.engine.scheduler import Scheduler
from service.engine.shared_cost import SharedCost
from service.engine.ticket import StoppedBy, Ticket
from tests.fakes import costs, ticket

NOW = 1000.0


def crowd(now: float, *budgets_s: float, priority: int = 0) -> list[Ticket]:
    return [
        ticket(arrived=now, budget_s=budget_s, members=1, seed=seed, priority=priority)
        for seed, budget_s in enumerate(budgets_s)
    ]


def engine_with(*tickets: Ticket, per_row: float = 0.001) -> Scheduler:
    """A row takes 10 ms alone, and `per_row` in company."""
    engine = Scheduler(costs(0.010, per_row=per_row), 8)
    for one in tickets:
        engine.admit(one, NOW)
    return engine


def test_the_tightest_is_not_passed_over_while_everybody_can_be_in_time():
    tight, *loose = crowd(NOW, 0.0105, 0.1, 0.1, 0.1)
    assert engine_with(tight, *loose).next_step(NOW).tickets == (tight,)


def test_where_one_is_late_anyway_a_fuller_batch_passes_over_the_tightest():
    tight, doomed, *loose = crowd(NOW, 0.0105, 0.0106, 0.1, 0.1, 0.1, 0.1)
    engine = engine_with(tight, doomed, *loose)
    step = engine.next_step(NOW)
    assert set(step.tickets) == set(loose)
    assert engine.waiting == 2
    assert engine.next_step(NOW).tickets == (tight,), "those passed over wait on"


def test_a_batch_grows_past_sizes_that_take_longer():
    """Of more than four rows threads share the work; of fewer that does not pay, by what was learned."""
    model_costs = CostModel()
    member = SharedCost({4: [0.006], 8: [0.008]}, {rows: [0.003 * rows] for rows in (1, 2, 4, 8)}, 0.95)
    for _ in range(2):
        member.observe(4, 0.030, NOW)
    model_costs.add("tiny/1", [member])
    for waiting, together in ((8, 8), (6, 6), (4, 3)):
        engine = Scheduler(model_costs, 8)
        for one in crowd(NOW, *[0.010] * waiting):
            engine.admit(one, NOW)
        assert len(engine.next_step(NOW).tickets) == together
        assert engine.waiting == waiting - together


def test_nobody_is_passed_over_where_batches_gain_nothing():
    tight, doomed, *loose = crowd(NOW, 0.0105, 0.0106, 0.1, 0.1, 0.1, 0.1)
    assert engine_with(tight, doomed, *loose, per_row=0.010).next_step(NOW).tickets == (tight,)


def test_nobody_is_passed_over_for_a_lower_priority():
    (tight, doomed), loose = crowd(NOW, 0.0105, 0.0106, priority=1), crowd(NOW, 0.1, 0.1, 0.1, 0.1)
    assert engine_with(tight, doomed, *loose).next_step(NOW).tickets == (tight,)


def test_a_fuller_batch_makes_no_other_models_first_member_late():
    model_costs = costs(0.010, model="tiny/1", per_row=0.001)
    model_costs.add("large/2", costs(0.015)._members["tiny/1"])
    engine = Scheduler(model_costs, 8)
    other = ticket(arrived=NOW, budget_s=0.0265, members=1, model="large/2", seed=9)
    for one in (other, *crowd(NOW, 0.0105, 0.0106, 0.1, 0.1, 0.1, 0.1)):
        engine.admit(one, NOW)
    assert len(engine.next_step(NOW).tickets) == 2, "11 of the 11.5 ms that the other can wait"
    assert engine.next_step(NOW + 0.011).tickets == (other,)


@pytest.mark.parametrize(("per_row", "every", "at_least"), [(0.001, 0.0012, 3.0), (0.005, 0.0025, 1.5)])
def test_in_overload_far_more_are_answered_than_batches_of_one_could(per_row: float, every: float, at_least: float):
    """Earliest deadline first answers 1.59 and 1.07 times as many as batches of one: deadlines keep batches small."""
    engine, random = Scheduler(costs(0.010, per_row=per_row), 16), np.random.default_rng(0)
    coming = np.cumsum(random.exponential(every, 2000)).tolist()
    now, answered = 0.0, 0
    while coming:
        while coming and coming[0] <= now:
            at = coming.pop(0)
            engine.admit(ticket(arrived=at, budget_s=random.choice([0.02, 0.05, 0.1]), members=1), now)
        step = engine.next_step(now)
        if step is None or not step.tickets:
            now = max(now, coming[0]) if coming else now
            continue
        now += 0.010 + per_row * (step.rows - 1)
        for one in step.tickets:
            one.depth = 1
            assert one.deadline.slack(now) >= -1e-9
        engine.complete(step.tickets, now)
        answered += sum(one.stopped_by is StoppedBy.COMPLETE for one in engine.take_settled())
    assert answered * 0.010 / now > at_least


def unsteady() -> CostModel:
    """A row takes 10 ms as a rule and 20 ms in one of ten steps; in company it adds 1 ms."""
    model_costs = costs(0.010, per_row=0.001)
    for step in range(40):
        model_costs.observe("tiny/1", 0, 1, 0.010 if step % 10 else 0.020, NOW)
    assert model_costs.predict("tiny/1", 0, 1, NOW) == pytest.approx(0.020)
    return model_costs


def test_who_is_as_likely_in_time_as_not_is_tried_alone():
    engine = Scheduler(unsteady(), 8)
    for one in (unsure := crowd(NOW, 0.015, 0.016)):
        engine.admit(one, NOW)
    assert engine.next_step(NOW).tickets == (unsure[1],), "the surer of the two"
    assert engine.next_step(NOW + 0.004).tickets == (unsure[0],)


def test_who_is_more_likely_late_than_not_is_turned_away():
    engine = Scheduler(unsteady(), 8)
    (one,) = crowd(NOW, 0.009)
    engine.admit(one, NOW)
    assert engine.take_settled() == [(one, StoppedBy.DEADLINE)]
    (later,) = crowd(NOW, 0.015)
    engine.admit(later, NOW)
    assert engine.next_step(NOW + 0.006).tickets == (), "a rehearsal"
    assert engine.take_settled() == [(later, StoppedBy.DEADLINE)]


def test_who_is_sure_to_be_in_time_goes_first_and_in_full_batches():
    engine = Scheduler(unsteady(), 8)
    (unsure,), sure = crowd(NOW, 0.015), crowd(NOW, *[0.05] * 4)
    for one in (unsure, *sure):
        engine.admit(one, NOW)
    assert set(engine.next_step(NOW).tickets) == set(sure)
    assert engine.next_step(NOW + 0.003).tickets == (unsure,), "it has waited on"


def test_a_first_answer_is_tried_for_until_the_last_moment_and_no_further_member():
    model_costs = costs(0.010, 0.010)
    engine = Scheduler(model_costs, 8)
    one = ticket(arrived=NOW, members=2)
    one.deadline = Deadline.after(NOW, 0.020, reserve_s=0.012, least_s=0.002)
    engine.admit(one, NOW)
    step = engine.next_step(NOW + 0.005)
    assert step.tickets == (one,), "15 of 18 ms"
    one.publish(0, np.zeros((1, 3), np.float32), "mean")
    engine.complete(step.tickets, NOW + 0.005)
    assert engine.take_settled() == [(one, StoppedBy.DEADLINE)], "by 8 ms the answer must be on its way"


def test_who_can_no_longer_be_in_time_keeps_no_other_models_batch_small():
    model_costs = costs(0.010, model="tiny/1", per_row=0.001)
    model_costs.add("large/2", costs(0.050)._members["tiny/1"])
    engine = Scheduler(model_costs, 8)
    hopeless = ticket(arrived=NOW, budget_s=0.052, members=1, model="large/2", seed=9)
    engine.admit(hopeless, NOW)
    crowded = crowd(NOW + 0.005, *[0.03] * 8)
    for one in crowded:
        engine.admit(one, NOW + 0.005)
    assert set(engine.next_step(NOW + 0.005).tickets) == set(crowded)
    assert [(one.ticket, one.stopped_by) for one in engine.take_settled()] == [(hopeless, StoppedBy.DEADLINE)]
