from __future__ import annotations

import math
import queue
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle import Bundle, Manifest, write_bundle
from bundle.exits import members_used
from bundle.reference import running_average
from service.engine.cpu import CpuExecutor
from service.engine.cuda import DeviceExecutor
from service.engine.deadline import MonotonicClock
from service.engine.executor import Executor
from service.engine.member_cost import MemberCost
from service.engine.profile import Profile
from service.engine.providers import CPU
from service.engine.publishing import publish
from service.engine.scheduler import Scheduler
from service.engine.shared_cost import SharedCost
from service.engine.step import Settled, Step
from service.engine.ticket import Exit, Logits, StoppedBy, Ticket
from service.engine.worker import Worker, WorkerStopped
from tests.fakes import FailingExecutor, FakeCrowd, HeldExecutor, costs, ticket
from tests.tiny import tiny_graph, tiny_manifest


class Bench:
    """A worker on a tiny bundle, and what it reports."""

    def __init__(self, executor: Executor, bundle: Bundle) -> None:
        self.settled: queue.SimpleQueue[Settled] = queue.SimpleQueue()
        self.steps: list[Step] = []
        self.given_up: list[Step] = []
        self.deaths = 0
        self.costs = costs(1e-6, 1e-6, 1e-6)
        executor.load("tiny/1", bundle)
        self.worker = Worker(
            executor, Scheduler(self.costs, 8), self.costs, MonotonicClock(), self._collect, self._step_done, self._died
        )
        self.worker.serve("tiny/1", bundle.manifest)

    def run(self, one: Ticket) -> StoppedBy:
        self.worker.submit(one)
        return self.settled.get(timeout=60).stopped_by

    def _collect(self, settled: Sequence[Settled]) -> None:
        for one in settled:
            self.settled.put(one)

    def _died(self) -> None:
        self.deaths += 1

    def _step_done(self, step: Step, duration_s: float | None) -> None:
        if duration_s is None:
            self.given_up.append(step)
            return
        assert duration_s >= 0
        self.steps.append(step)


@pytest.fixture
def bench(tiny: Bundle) -> Iterator[Callable[[Executor], Bench]]:
    benches: list[Bench] = []

    def start(executor: Executor) -> Bench:
        benches.append(Bench(executor, tiny))
        benches[-1].worker.start()
        return benches[-1]

    yield start
    for one in benches:
        if one.worker.alive:
            one.worker.stop()


def forever(**changes: Any) -> Ticket:
    """A request without a deadline, so that the machine's speed does not matter."""
    return ticket(arrived=0.0, **changes)


def patient(**changes: Any) -> Ticket:
    """A request with an hour to go: its further members stay optional."""
    return ticket(arrived=MonotonicClock().now(), budget_s=3600.0, **changes)


def test_a_request_gets_the_reference_answer_of_every_member(tiny: Bundle, bench: Callable[[Executor], Bench]):
    subject, one = bench(CpuExecutor(threads=1)), forever(rows=5)
    assert subject.run(one) is StoppedBy.COMPLETE
    *_, expected = running_average(tiny, one.inputs)
    np.testing.assert_allclose(one.published.logits, expected, atol=1e-5)
    assert [(step.member, step.rows) for step in subject.steps] == [(0, 5), (1, 5), (2, 5)]


def test_a_deadline_that_has_passed_settles_without_a_step(bench: Callable[[Executor], Bench]):
    subject = bench(CpuExecutor(threads=1))
    late = ticket(arrived=0.0, budget_s=1e-9)
    assert subject.run(late) is StoppedBy.DEADLINE
    assert late.published is None
    assert all(late not in step.tickets for step in subject.steps)


def test_the_prefix_is_public_while_the_next_member_runs(tiny: Bundle, bench: Callable[[Executor], Bench]):
    executor = HeldExecutor(held=2)
    subject, one = bench(executor), forever(rows=2)
    subject.worker.submit(one)
    assert executor.entered.wait(60)
    published = one.published
    executor.release.set()
    assert published.members == 2
    np.testing.assert_allclose(published.logits, list(running_average(tiny, one.inputs))[1], atol=1e-5)
    assert subject.settled.get(timeout=60).stopped_by is StoppedBy.COMPLETE


class GivenUpOnce(HeldExecutor):
    """The first run of the held member is given up before it has begun."""

    def run(self, step: Step) -> Logits:
        if step.member == self._held and self._held not in self.members_run:
            step.halt()
        return super().run(step)


def test_a_step_that_is_given_up_is_run_again(tiny: Bundle, bench: Callable[[Executor], Bench]):
    executor = GivenUpOnce(held=1)
    executor.release.set()
    subject, one = bench(executor), patient(rows=3)
    assert subject.run(one) is StoppedBy.COMPLETE
    assert [(step.member, step.tickets) for step in subject.given_up] == [(1, (one,))]
    assert [step.member for step in subject.steps] == [0, 1, 2], "what was given up teaches no cost and is no step"
    assert executor.members_run == [0, 1, 1, 2]
    np.testing.assert_allclose(one.published.logits, list(running_average(tiny, one.inputs))[-1], atol=1e-5)


def test_what_runs_can_be_given_up_if_it_is_optional_and_the_device_lets_go(bench: Callable[[Executor], Bench]):
    for held, halts, can in ((0, True, False), (1, True, True), (1, False, False)):
        executor = HeldExecutor(held)
        executor.halts = halts
        subject = bench(executor)
        subject.worker.submit(patient())
        assert executor.entered.wait(60)
        running = subject.worker.running
        executor.release.set()
        assert (running.step.member, running.step.halt is not None) == (held, can)
        assert running.began <= running.until
        assert subject.settled.get(timeout=60).stopped_by is StoppedBy.COMPLETE


def test_a_client_that_hangs_up_frees_its_work_before_the_next_member(bench: Callable[[Executor], Bench]):
    executor = HeldExecutor(held=0)
    subject, gone, stays = bench(executor), forever(seed=1), forever(seed=2)
    subject.worker.submit(gone)
    assert executor.entered.wait(60)
    subject.worker.submit(stays)
    subject.worker.cancel(gone, StoppedBy.ABANDONED)
    executor.release.set()
    outcomes = {one.ticket: one.stopped_by for one in (subject.settled.get(timeout=60) for _ in range(2))}
    assert outcomes == {gone: StoppedBy.ABANDONED, stays: StoppedBy.COMPLETE}
    assert gone.depth == 1
    assert [step.tickets for step in subject.steps] == [(gone,), (stays,), (stays,), (stays,)]


@pytest.mark.parametrize("nan", [False, True])
def test_a_member_that_fails_leaves_the_earlier_prefix(tiny: Bundle, bench: Callable[[Executor], Bench], nan: bool):
    subject, one = bench(FailingExecutor(1, lambda _: True, nan=nan)), forever()
    assert subject.run(one) is StoppedBy.MEMBER_FAILED
    assert one.published.members == 1
    np.testing.assert_allclose(one.published.logits, next(running_average(tiny, one.inputs)), atol=1e-5)


@pytest.mark.parametrize("nan", [False, True])
def test_one_request_at_fault_costs_its_company_nothing(tiny: Bundle, bench: Callable[[Executor], Bench], nan: bool):
    subject = bench(FailingExecutor(1, lambda one: one.request_id == "ticket-1", nan=nan))
    company = [forever(rows=2, seed=seed) for seed in range(3)]
    # Submitted on the worker's own thread, between two steps: they start together.
    subject.worker.call(lambda: [subject.worker.submit(one) for one in company]).result(60)
    outcomes = {one.ticket: one.stopped_by for one in (subject.settled.get(timeout=60) for _ in range(3))}
    assert [outcomes[one] for one in company] == [StoppedBy.COMPLETE, StoppedBy.MEMBER_FAILED, StoppedBy.COMPLETE]
    for one in (company[0], company[2]):
        *_, expected = running_average(tiny, one.inputs)
        np.testing.assert_allclose(one.published.logits, expected, atol=1e-5)


@pytest.mark.parametrize("executor", [CpuExecutor(threads=1), DeviceExecutor(CPU, "cpu")], ids=["cpu", "device"])
def test_rows_leave_early_with_the_reference_answer_and_cost_nothing_more(
    tiny: Bundle, bench: Callable[[Executor], Bench], executor: Executor
):
    subject = bench(executor)
    threshold = 0.9
    one = forever(
        rows=16, exit=Exit((threshold, threshold), StoppedBy.EXIT_CONFIDENCE), profile=Profile.of(tiny.manifest)
    )
    inputs = one.inputs
    prefixes = list(running_average(tiny, inputs))
    used = members_used(prefixes, [1.0] * 3, [threshold] * 2)
    assert set(used.tolist()) == {1, 2, 3}, "otherwise this test shows little"
    assert subject.run(one) is StoppedBy.COMPLETE
    assert one.published.members_by_row.tolist() == used.tolist()
    expected = np.stack([prefixes[members - 1][row] for row, members in enumerate(used)])
    np.testing.assert_allclose(one.published.logits, expected, atol=1e-5)
    assert [step.rows for step in subject.steps] == [16, int((used > 1).sum()), int((used > 2).sum())]


def test_a_last_member_that_is_run_before_its_turn_gives_the_reference_answer(models: Path):
    graphs = [tiny_graph(0), tiny_graph(1), tiny_graph(0)]
    files = {f"member_{index:02d}.onnx": graph for index, graph in enumerate(graphs)}

    def manifest(version: int) -> Manifest:
        stated = tiny_manifest(graphs, version, last="replace")
        alone = stated.members[-1].model_copy(update={"connections": ()})
        return stated.model_copy(update={"members": (*stated.members[:-1], alone)})

    bundle = write_bundle(models, files, manifest)
    subject = Bench(CpuExecutor(threads=1), bundle)
    # Together they need 1.4 s of the second that there is; without the one between, 0.9.
    for member, seconds in enumerate((0.4, 0.5, 0.5)):
        subject.costs._members["tiny/1"][member] = MemberCost({1: [seconds]}, 0.95)
    one = ticket(arrived=0.0, budget_s=1.0, profile=Profile.of(bundle.manifest))
    scheduler = subject.worker._scheduler
    scheduler.admit(one, 0.0)
    for now in (0.0, 0.4):
        step = scheduler.next_step(now)
        executor = subject.worker._executor
        publish(step, step.member, executor.run(step), bundle.manifest, executor)
        scheduler.complete(step.tickets, now)
    assert step.member == 2
    *_, expected = running_average(bundle, one.inputs)
    np.testing.assert_allclose(one.published.logits, expected, atol=1e-5)
    assert one.published.members == 3


def test_costs_are_learned_from_steps(bench: Callable[[Executor], Bench]):
    subject = bench(CpuExecutor(threads=1))
    before = subject.costs.predict("tiny/1", 0, 1, 0.0)
    for seed in range(2):
        subject.run(forever(seed=seed))
    learned = subject.worker.call(lambda: subject.costs.predict("tiny/1", 0, 1, MonotonicClock().now())).result(60)
    assert learned != before


@pytest.mark.parametrize("crowded", [False, True])
def test_what_a_step_takes_beside_a_crowded_loop_is_learned_apart(bench: Callable[[Executor], Bench], crowded: bool):
    subject = bench(CpuExecutor(threads=1))
    subject.costs.watch(FakeCrowd(crowded))
    subject.run(forever())
    known = [
        len(members["tiny/1"][0]._ratios)  # type: ignore[union-attr]
        for members in (subject.costs._members, subject.costs._in_crowd)
    ]
    assert known == ([0, 1] if crowded else [1, 0])


def test_answers_go_out_before_the_next_step_is_planned(
    bench: Callable[[Executor], Bench], monkeypatch: pytest.MonkeyPatch
):
    subject, log = bench(CpuExecutor(threads=1)), list[str]()
    scheduler = subject.worker._scheduler
    plan, answer = scheduler.next_step, subject.worker._on_settled
    monkeypatch.setattr(scheduler, "next_step", lambda now: log.append("plan") or plan(now))
    monkeypatch.setattr(subject.worker, "_on_settled", lambda settled: log.append("answer") or answer(settled))
    subject.run(forever())
    assert log[: log.index("answer")] == ["plan"] * 3


def test_a_step_has_one_thread_where_that_is_no_slower_and_teaches_what_one_thread_takes(
    bench: Callable[[Executor], Bench],
):
    subject = bench(CpuExecutor(threads=2))
    # Longer than any step, so that what they teach is seen.
    shared = SharedCost({1: [60.0]}, {1: [50.0]}, 0.95, MonotonicClock().now())
    subject.worker.call(lambda: subject.costs._members["tiny/1"].__setitem__(1, shared)).result(60)
    subject.run(forever())
    assert [step.on_one_thread for step in subject.steps] == [False, True, False]
    assert shared._alone.usual < 1
    assert shared._sizes[1].shared.usual == 1.0


def test_more_threads_are_tried_again_for_those_who_have_time(bench: Callable[[Executor], Bench]):
    subject = bench(CpuExecutor(threads=2))
    before = MonotonicClock().now() - 2
    # Steps last longer than the deadline of the first request allows to find out about.
    shared = SharedCost({1: [200.0]}, {1: [1000.0]}, 0.95)
    for _ in range(2):
        shared.observe(1, 2000.0, before)
    subject.worker.call(lambda: subject.costs._members["tiny/1"].__setitem__(1, shared)).result(60)
    subject.run(ticket(arrived=MonotonicClock().now(), budget_s=3600.0))
    assert [step.on_one_thread for step in subject.steps] == [False, True, False]
    subject.run(forever())
    assert [step.on_one_thread for step in subject.steps[3:]] == [False, False, False]
    assert not shared.on_one_thread(1), "it was fast"


def test_stopping_settles_what_waits(bench: Callable[[Executor], Bench]):
    executor = HeldExecutor(held=0)
    subject, running, waiting = bench(executor), forever(seed=1), forever(seed=2)
    subject.worker.submit(running)
    assert executor.entered.wait(60)
    subject.worker.submit(waiting)
    executor.release.set()
    subject.worker.stop()
    outcomes = {one.ticket for one in (subject.settled.get(timeout=60) for _ in range(2))}
    assert outcomes == {running, waiting}
    assert not subject.worker.alive


def test_a_request_that_comes_too_late_is_settled_all_the_same(bench: Callable[[Executor], Bench]):
    subject = bench(CpuExecutor(threads=1))
    subject.worker.stop()
    assert subject.run(forever()) is StoppedBy.SHUTDOWN


def test_a_call_hands_back_its_result_or_its_error(bench: Callable[[Executor], Bench]):
    subject = bench(CpuExecutor(threads=1))
    assert subject.worker.call(lambda: 42).result(60) == 42
    with pytest.raises(ZeroDivisionError):
        subject.worker.call(lambda: 1 // 0).result(60)
    assert subject.worker.alive


@pytest.mark.parametrize(("by", "steps_before"), [(math.inf, 3), (0.0, 2)])
def test_spare_work_waits_for_idle_time_or_until_it_is_due(
    bench: Callable[[Executor], Bench], by: float, steps_before: int
):
    executor = HeldExecutor(held=0)
    subject, one = bench(executor), forever()
    subject.worker.submit(one)
    assert executor.entered.wait(60)
    spare = subject.worker.call_spare(lambda: len(subject.steps), by)
    executor.release.set()
    assert spare.result(60) == steps_before
    assert subject.settled.get(timeout=60).stopped_by is StoppedBy.COMPLETE


def test_nobody_waits_for_a_thread_that_has_ended(bench: Callable[[Executor], Bench]):
    subject = bench(CpuExecutor(threads=1))
    subject.worker.stop()
    for message in (subject.worker.call(lambda: 1), subject.worker.call_spare(lambda: 1, 0.0)):
        with pytest.raises(WorkerStopped):
            message.result(60)


def test_a_model_that_is_forgotten_is_not_rehearsed(bench: Callable[[Executor], Bench]):
    subject = bench(CpuExecutor(threads=1))
    subject.worker.call(lambda: subject.worker.forget("tiny/1")).result(60)
    subject.worker.call(lambda: subject.worker._run(Step("tiny/1", 0, (), 1))).result(60)
    assert subject.steps == []


class Killed(BaseException):
    """What no handler of a failing member catches."""


class MortalExecutor(CpuExecutor):
    """Dies of its second step, in the midst of a request."""

    def run(self, step: Step) -> Logits:
        if step.member == 1:
            raise Killed
        return super().run(step)


def test_a_thread_that_dies_settles_the_request_in_its_hands(tiny: Bundle, bench: Callable[[Executor], Bench]):
    subject, one = bench(MortalExecutor(threads=1)), forever()
    assert subject.run(one) is StoppedBy.SHUTDOWN
    np.testing.assert_allclose(one.published.logits, next(running_average(tiny, one.inputs)), atol=1e-5)
    assert subject.deaths == 1


def test_it_can_be_started_again_on_a_fresh_executor(tiny: Bundle, bench: Callable[[Executor], Bench]):
    subject = bench(MortalExecutor(threads=1))
    subject.run(forever())
    fresh = CpuExecutor(threads=1)
    fresh.load("tiny/1", tiny)
    subject.worker.restart(fresh, Scheduler(subject.costs, 8))
    subject.worker.call(lambda: subject.worker.serve("tiny/1", tiny.manifest)).result(60)
    assert subject.worker.alive
    assert subject.run(forever()) is StoppedBy.COMPLETE


def test_a_bug_in_the_engine_settles_everybody_and_shows(tiny: Bundle):
    class BrokenScheduler(Scheduler):
        def next_step(self, now: float) -> Step | None:
            raise AssertionError("bug")

    subject = Bench(CpuExecutor(threads=1), tiny)
    subject.worker = Worker(
        CpuExecutor(threads=1),
        BrokenScheduler(subject.costs, 8),
        subject.costs,
        MonotonicClock(),
        subject._collect,
        subject._step_done,
    )
    subject.worker.submit(forever())
    subject.worker.start()
    assert subject.settled.get(timeout=60).stopped_by is StoppedBy.SHUTDOWN
    subject.worker._thread.join(60)
    assert not subject.worker.alive
