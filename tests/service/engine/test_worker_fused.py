"""The worker on groups: four members in a chain, the last three of them in one go, on a clock that the test moves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle import Bundle
from bundle.reference import running_average
from service.engine.step import IDLE, Running, Step
from service.engine.ticket import Logits, StoppedBy, Ticket
from tests.fakes import FakeClock, FusingExecutor, TimedFusion, costs, ticket
from tests.service.engine.bench import Bench, check, check_company
from tests.tiny import write_tiny

SECONDS = 1e-4
GROUP = range(1, 4)


class BadFusion(TimedFusion):
    """One member of the group raises, or gives NaN, on the rows of requests at fault."""

    def run(self, step: Step) -> Generator[Logits]:
        bad: Any = self._executor
        at_fault = [bad.at_fault(one) for one in step.tickets]
        if any(at_fault) and not bad.nan:
            raise RuntimeError("the graph caught fire")
        for member, logits in zip(step.members, super().run(step), strict=True):
            if member == bad.member and any(at_fault):
                logits[np.repeat(at_fault, [one.rows for one in step.tickets]).nonzero()] = np.nan
            yield logits


class BadExecutor(FusingExecutor):
    """Fails in the same way when the member is run alone."""

    def __init__(self, member: int, at_fault: Callable[[Ticket], bool], *, nan: bool) -> None:
        clock = FakeClock()
        super().__init__(clock, lambda _: SECONDS)
        self.member, self.at_fault, self.nan = member, at_fault, nan
        self.fusion = BadFusion(self, clock, lambda _: SECONDS)

    def run(self, step: Step) -> Logits:
        if step.member == self.member and any(map(self.at_fault, step.tickets)):
            raise RuntimeError("the device caught fire")
        return super().run(step)


@pytest.fixture
def chain(models: Path) -> Bundle:
    return write_tiny(models, members=4)


@pytest.fixture
def bench(chain: Bundle) -> Iterator[Callable[[FusingExecutor], Bench]]:
    benches: list[Bench] = []

    def start(executor: FusingExecutor) -> Bench:
        benches.append(Bench(executor, costs(*(SECONDS,) * 4, fused={GROUP: SECONDS}), {"tiny/1": chain}))
        executor.fusion.load("tiny/1", chain, [GROUP])
        benches[-1].worker.start()
        return benches[-1]

    yield start
    for one in benches:
        one.worker.stop()


def sound() -> FusingExecutor:
    return FusingExecutor(FakeClock(), lambda _: SECONDS)


def request(**changes: Any) -> Ticket:
    return ticket(members=4, **changes)


def test_a_group_gives_the_reference_answer_prefix_by_prefix(chain: Bundle, bench: Callable[[FusingExecutor], Bench]):
    subject, one = bench(sound()), request(rows=5)
    told: list[tuple[int, Logits]] = []
    one.on_published = lambda: told.append((one.published.members, one.published.logits))
    assert subject.run(one) == {one: StoppedBy.COMPLETE}
    assert [(step.member, step.width, step.fused) for step in subject.steps] == [(0, 1, False), (1, 3, True)]
    assert [members for members, _ in told] == [1, 2, 3, 4]
    for (_, logits), expected in zip(told, running_average(chain, one.inputs), strict=True):
        np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert len(one.classes_by_prefix) == 4
    assert not one.activations


def test_the_gate_can_see_how_long_it_will_take(bench: Callable[[FusingExecutor], Bench]):
    executor = sound()
    seen: list[tuple[Running, float]] = []
    subject = bench(executor)
    executor._seconds = executor.fusion._seconds = lambda _: (
        seen.append((subject.worker.running, executor._clock.now())) or SECONDS
    )
    subject.run(request())
    running, now = seen[-1]
    assert (running.step.width, running.until) == (3, pytest.approx(now + SECONDS))
    assert subject.worker.running is IDLE


@pytest.mark.parametrize("nan", [False, True])
@pytest.mark.parametrize("member", [1, 2, 3])
def test_a_member_that_fails_leaves_the_earlier_prefix(
    chain: Bundle, bench: Callable[[FusingExecutor], Bench], member: int, nan: bool, caplog: pytest.LogCaptureFixture
):
    subject, one = bench(BadExecutor(member, lambda _: True, nan=nan)), request()
    with caplog.at_level(logging.ERROR):
        assert subject.run(one) == {one: StoppedBy.MEMBER_FAILED}
    check(chain, one, member)
    assert ("members [1, 2, 3] of tiny/1 failed in one go" in caplog.text) != nan
    assert subject.worker.running is IDLE


@pytest.mark.parametrize("nan", [False, True])
@pytest.mark.parametrize("member", [1, 2, 3])
def test_one_request_at_fault_costs_its_company_nothing(
    chain: Bundle, bench: Callable[[FusingExecutor], Bench], member: int, nan: bool
):
    subject = bench(BadExecutor(member, lambda one: one.request_id == "ticket-1", nan=nan))
    check_company(subject, chain, member)


def test_a_group_that_fails_where_its_members_do_not_costs_nobody_a_member(
    chain: Bundle, bench: Callable[[FusingExecutor], Bench]
):
    executor = BadExecutor(9, lambda _: True, nan=False)
    subject, company = bench(executor), [request(seed=seed) for seed in range(3)]
    assert set(subject.run(*company).values()) == {StoppedBy.COMPLETE}
    for one in company:
        check(chain, one, 4)
    assert not any(step.fused for step in subject.steps)


def test_what_a_group_takes_is_learned(bench: Callable[[FusingExecutor], Bench]):
    subject = bench(FusingExecutor(FakeClock(), lambda step: 2 * SECONDS if step.fused else SECONDS))
    for _ in range(2):
        # One slow step may be a hiccup.
        subject.run(request())
    now = subject.worker._clock.now()
    assert subject.costs.fused("tiny/1").predict(1, 3, 1, now) == pytest.approx(2 * SECONDS)
    assert subject.costs.predict("tiny/1", 1, 1, now) == pytest.approx(SECONDS)
