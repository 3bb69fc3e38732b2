"""The worker on waves: four members, the last three of them apart, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle import Bundle
from bundle.reference import running_average
from service.engine.step import IDLE, Step
from service.engine.ticket import Logits, StoppedBy, Ticket
from tests.fakes import FakeClock, TimedLanes, WideExecutor, costs, ticket
from tests.service.engine.bench import Bench, check, check_company
from tests.tiny import write_tiny
from tests.tiny_dag import write_dag

SECONDS = 0.010


def takes(step: Step) -> float:
    return SECONDS


class BadLanes(TimedLanes):
    """One member of the wave raises, or gives NaN, on the rows of requests at fault."""

    def __init__(self, *arguments: Any, member: int, at_fault: Callable[[Ticket], bool], nan: bool) -> None:
        super().__init__(*arguments)
        self._member, self._at_fault, self._nan = member, at_fault, nan

    def run(self, step: Step) -> Generator[Logits]:
        bad = [self._at_fault(one) for one in step.tickets]
        for member, logits in zip(step.members, super().run(step), strict=True):
            if member == self._member and any(bad):
                if not self._nan:
                    raise RuntimeError("the lane caught fire")
                logits[np.repeat(bad, [one.rows for one in step.tickets]).nonzero()] = np.nan
            yield logits


class BadExecutor(WideExecutor):
    """Fails in the same way when the member is run alone."""

    def __init__(self, member: int, at_fault: Callable[[Ticket], bool], *, nan: bool) -> None:
        clock = FakeClock()
        super().__init__(clock, takes)
        self._member, self._at_fault, self._nan = member, at_fault, nan
        self._timed_lanes = BadLanes(self, clock, takes, 3, member=member, at_fault=at_fault, nan=nan)

    def run(self, step: Step) -> Logits:
        if step.member == self._member and any(map(self._at_fault, step.tickets)):
            raise RuntimeError("the device caught fire")
        return super().run(step)


@pytest.fixture
def apart(models: Path) -> Bundle:
    return write_dag(models, [[], [], [], []])


@pytest.fixture
def bench(apart: Bundle, models: Path) -> Iterator[Callable[[WideExecutor], Bench]]:
    benches: list[Bench] = []
    other = write_tiny(models, name="other")

    def start(executor: WideExecutor) -> Bench:
        model_costs = costs(*(SECONDS,) * 4, wave_s=SECONDS, lanes=3)
        model_costs.add("other/1", costs(*(SECONDS,) * 3)._members["tiny/1"])
        benches.append(Bench(executor, model_costs, {"tiny/1": apart, "other/1": other}))
        benches[-1].worker.start()
        return benches[-1]

    yield start
    for one in benches:
        one.worker.stop()


def request(**changes: Any) -> Ticket:
    return ticket(members=4, **changes)


def test_a_wave_gives_the_reference_answer_prefix_by_prefix(apart: Bundle, bench: Callable[[WideExecutor], Bench]):
    subject, one = bench(WideExecutor(FakeClock(), takes, 3)), request(rows=5)
    told: list[tuple[int, Logits]] = []
    one.on_published = lambda: told.append((one.published.members, one.published.logits))
    assert subject.run(one) == {one: StoppedBy.COMPLETE}
    assert [(step.member, step.width) for step in subject.steps] == [(0, 1), (1, 3)]
    assert [members for members, _ in told] == [1, 2, 3, 4]
    for (_, logits), expected in zip(told, running_average(apart, one.inputs), strict=True):
        np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert len(one.classes_by_prefix) == 4


def test_each_prefix_is_public_as_soon_as_its_member_has_ended(apart: Bundle, bench: Callable[[WideExecutor], Bench]):
    executor = WideExecutor(FakeClock(), takes, 3)
    lanes, seen, one = executor.lanes, [], request()
    run = lanes.run

    def watch(step: Step) -> Generator[Logits]:
        for logits in run(step):
            seen.append(one.published.members)
            yield logits

    lanes.run = watch
    bench(executor).run(one)
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("nan", [False, True])
@pytest.mark.parametrize("member", [1, 2, 3])
def test_a_member_that_fails_in_a_wave_leaves_the_earlier_prefix(
    apart: Bundle, bench: Callable[[WideExecutor], Bench], member: int, nan: bool
):
    subject, one = bench(BadExecutor(member, lambda one: one.model == "tiny/1", nan=nan)), request()
    other = ticket(model="other/1", seed=9)
    outcomes = subject.run(one, other)
    assert outcomes == {one: StoppedBy.MEMBER_FAILED, other: StoppedBy.COMPLETE}
    check(apart, one, member)
    assert subject.worker.running is IDLE


@pytest.mark.parametrize("nan", [False, True])
@pytest.mark.parametrize("member", [1, 2, 3])
def test_one_request_at_fault_costs_its_company_nothing(
    apart: Bundle, bench: Callable[[WideExecutor], Bench], member: int, nan: bool
):
    subject = bench(BadExecutor(member, lambda one: one.request_id == "ticket-1", nan=nan))
    check_company(subject, apart, member)


def test_what_a_wave_takes_is_learned(bench: Callable[[WideExecutor], Bench]):
    subject = bench(WideExecutor(FakeClock(), lambda step: 0.5 * SECONDS if step.width > 1 else SECONDS, 3))
    for _ in range(2):
        # One slow step may be a hiccup.
        subject.run(request())
    waves = subject.costs.waves("tiny/1")
    now = subject.worker._clock.now()
    assert waves.predict(1, 3, 1, now) == pytest.approx(0.5 * SECONDS)
    assert waves.predict(1, 2, 1, now) == pytest.approx(SECONDS), "each number of members is a key of its own"
    assert subject.costs.predict("tiny/1", 1, 1, now) == pytest.approx(SECONDS)
