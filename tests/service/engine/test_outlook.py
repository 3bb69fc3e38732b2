"""What further members are worth is known when somebody asks, and asked only where it makes a difference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from bundle.exits import confidence
from service.engine.cpu import CpuExecutor
from service.engine.outlook import Outlook
from service.engine.profile import Profile, Values
from service.engine.publishing import publish
from service.engine.scheduler import Scheduler
from service.engine.step import Step
from service.engine.ticket import Exit, StoppedBy, Ticket
from tests.fakes import costs, ticket
from tests.tiny import tiny_graph, tiny_manifest

NOW = 1000.0
BANDS = Profile(
    accuracy=(0.7, 0.8, 0.9),
    edges=((0.6, 1.0), (0.7, 1.0), (1.0,)),
    ahead=(((0.5, 0.7, 0.9), (0.9, 0.91, 0.92)), ((0.6, 0.8), (0.9, 0.95)), ((0.9,),)),
    temperature=(0.5, 2.0, 1.0),
    jumps=False,
)
MANIFEST = tiny_manifest([tiny_graph(index) for index in range(3)])
LOGITS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


def on_bands(rows: int, seed: int = 0, **changes: object) -> Ticket:
    return ticket(rows, seed=seed, profile=BANDS, members=3, arrived=NOW, **changes)


def after_first(*tickets: Ticket) -> list[Values]:
    """What is expected of each after the first member has given it its rows of LOGITS."""
    step = Step("tiny/1", 0, tickets, sum(one.rows for one in tickets))
    assert publish(step, 0, LOGITS[: step.rows], MANIFEST, CpuExecutor(1)) == []
    return [one.expected for one in tickets]


def by_definition(rows: np.ndarray) -> Values:
    return BANDS.after(1, confidence(rows, BANDS.temperature[0]).tolist())


@pytest.mark.parametrize("sizes", [(1,), (4,), (1, 1), (2, 1, 3)])
def test_it_is_the_same_alone_and_in_a_batch(sizes: Sequence[int]):
    stops = np.cumsum(sizes)
    expected = [by_definition(LOGITS[stop - size : stop]) for stop, size in zip(stops, sizes, strict=True)]
    assert after_first(*(on_bands(size, seed) for seed, size in enumerate(sizes))) == [
        pytest.approx(values) for values in expected
    ]


def test_it_is_of_the_rows_that_have_not_left():
    sure = confidence(LOGITS[:4], BANDS.temperature[0])
    one = on_bands(4, exit=Exit((float(np.median(sure)), None), StoppedBy.EXIT_CONFIDENCE))
    (expected,) = after_first(one)
    assert one.rows == 2
    assert expected == pytest.approx(by_definition(LOGITS[:4][sure < np.median(sure)]))


def test_values_of_a_regression_are_worth_the_last_band():
    one = on_bands(2, task="regression")
    assert after_first(one) == [BANDS.after(1, [1.0, 1.0])]


def test_an_outlook_stays_that_of_its_prefix():
    one = on_bands(1)
    one.publish(0, LOGITS[:1], "mean")
    first = one.outlook
    one.publish(1, LOGITS[1:2], "mean")
    assert isinstance(first, Outlook)
    assert first.values == pytest.approx(by_definition(LOGITS[:1]))
    assert one.expected == pytest.approx(BANDS.after(2, confidence(LOGITS[:2].mean(0, keepdims=True), 2.0).tolist()))


class Unasked(Outlook):
    """Fails whoever wants to know."""

    def __init__(self) -> None:
        super().__init__(BANDS, 1, LOGITS[:1], regression=False)

    @property
    def values(self) -> Values:
        raise AssertionError("there is no need to know this")


def started(budget_s: float, seed: int = 0) -> Ticket:
    one = ticket(arrived=NOW, budget_s=budget_s, members=3, seed=seed)
    one.depth, one.outlook = 1, Unasked()
    return one


def test_who_is_alone_and_has_time_for_all_is_not_looked_at():
    engine = Scheduler(costs(0.010, 0.010, 0.010), 8)
    alone = started(0.0201)
    engine.complete([alone], NOW)
    step = engine.next_step(NOW)
    assert (step.member, step.tickets) == (1, (alone,))


@pytest.mark.parametrize("budget_s", [0.0199, 0.011])
def test_who_has_not_the_time_for_all_is_looked_at(budget_s: float):
    engine = Scheduler(costs(0.010, 0.010, 0.010), 8)
    with pytest.raises(AssertionError, match="no need"):
        engine.complete([started(budget_s)], NOW)


def test_so_is_everybody_when_somebody_else_comes():
    engine = Scheduler(costs(0.010, 0.010, 0.010), 8)
    engine.complete([started(0.5, 1)], NOW)
    with pytest.raises(AssertionError, match="no need"):
        engine.complete([started(0.5, 2)], NOW)


def test_the_limit_says_what_all_is():
    engine = Scheduler(costs(0.010, 0.010, 0.010), 8)
    alone = started(0.012)
    alone.member_limit = 2
    engine.complete([alone], NOW)
    assert engine.next_step(NOW).member == 1


def test_who_waited_alone_is_planned_when_its_time_gets_short():
    engine = Scheduler(costs(0.010, 0.010, 0.010), 8)
    alone = started(0.030)
    engine.complete([alone], NOW)
    alone.outlook = (0.5, 0.6, 0.7)
    assert engine.next_step(NOW + 0.015).tickets == (alone,), "there is time for one member more, not for two"
    assert alone.way_until == pytest.approx(NOW + 0.020, abs=1e-5)


def test_a_batch_is_looked_at_in_one_go_but_between_the_members_of_a_step_nobody_is():
    others = on_bands(1, 1), on_bands(2, 2)
    after_first(*others)
    assert [type(one.outlook) for one in others] == [tuple, tuple]
    one, *more = (on_bands(1, seed) for seed in range(3))
    after_first(one)
    step = Step("tiny/1", 0, tuple(more), 2, width=2)
    publish(step, 0, LOGITS[:2], MANIFEST, CpuExecutor(1))
    assert [type(each.outlook) for each in (one, *more)] == [Outlook] * 3
    publish(step, 1, LOGITS[:2], MANIFEST, CpuExecutor(1))
    assert [type(each.outlook) for each in more] == [tuple] * 2
