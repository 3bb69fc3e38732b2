"""Members of a stream on real chunk graphs: exact whoever was behind, and bounded in what is held."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bundle import Bundle
from bundle.reference import running_average_chunks
from service.engine.cpu import CpuExecutor
from service.engine.cuda import DeviceExecutor
from service.engine.deadline import Deadline
from service.engine.executor import Executor
from service.engine.providers import CPU
from service.engine.scheduler import Scheduler
from service.engine.step import Step
from service.engine.stream import Part, Stream, stream_bytes, stream_key
from service.engine.ticket import StoppedBy, Ticket
from tests.fakes import FakeClock, costs, profile
from tests.tiny_stream import CHUNK_STEPS, STEPS, sequences, write_stream

KEY = stream_key("stream/1")
CHUNKS = STEPS // CHUNK_STEPS
MEMBER_S = 0.1
"""So little that nobody loses patience."""


@pytest.fixture
def bundle(models: Path) -> Bundle:
    return write_stream(models)


def executor_of(kind: str, bundle: Bundle) -> Executor:
    executor = CpuExecutor(threads=1) if kind == "cpu" else DeviceExecutor(CPU, "cpu")
    executor.load("stream/1", bundle)
    return executor


def chunk(x: np.ndarray, number: int) -> np.ndarray:
    return x[:, number * CHUNK_STEPS : (number + 1) * CHUNK_STEPS]


def ticket(part: Part, chunk: np.ndarray, *, budget_s: float | None = None, now: float = 1000.0, **more) -> Ticket:
    return Ticket(
        request_id="r",
        model=KEY,
        inputs=chunk,
        deadline=Deadline.after(now, budget_s, 0.0),
        profile=profile(0.7, 0.75, 0.8),
        members_total=3,
        member_limit=3,
        part=part,
        **more,
    )


class Bench:
    """A scheduler on a fake clock, driven as the worker drives it."""

    def __init__(self, executor: Executor, max_batch_rows: int = 8) -> None:
        self.clock = FakeClock()
        self.scheduler = Scheduler(costs(MEMBER_S, MEMBER_S, MEMBER_S, model=KEY), max_batch_rows)
        self.executor = executor
        self.steps: list[Step] = []
        self.settled: dict[Ticket, StoppedBy] = {}

    def admit(self, *tickets: Ticket) -> None:
        for one in tickets:
            self.scheduler.admit(one, self.clock.now())

    def answer(self, stream: Stream, chunk: np.ndarray, runs: float | None, **more) -> Ticket:
        """Let one more chunk come now, with time for so many runs, and run until it has its answer, no further."""
        budget_s = None if runs is None else runs * MEMBER_S
        one = ticket(stream.extend(chunk), chunk, budget_s=budget_s, now=self.clock.now(), **more)
        self.admit(one)
        self._settle()
        while one not in self.settled:
            self.step()
        return one

    def step(self) -> Step | None:
        step = self.scheduler.next_step(self.clock.now())
        self._settle()
        if step is None or not step.tickets:
            return None
        assert step.halt is None, "what a stream remembers is not given up half-way"
        logits = self.executor.run(step)
        self.clock.advance(MEMBER_S)
        self.steps.append(step)
        for row, one in enumerate(step.tickets):
            if not one.part.advance(step.member):
                continue
            if one.in_arrears:
                one.depth += 1
            else:
                one.publish(step.member, logits[row : row + 1], "mean")
        self.scheduler.complete(step.tickets, self.clock.now())
        self._settle()
        return step

    def drain(self) -> None:
        while self.step() is not None:
            pass

    def members(self) -> list[int]:
        return [step.member for step in self.steps]

    def _settle(self) -> None:
        for one, reason in self.scheduler.take_settled():
            assert one not in self.settled
            self.settled[one] = reason
            one.ended = self.clock.now()


def reference(bundle: Bundle, x: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    return {(one.steps // CHUNK_STEPS, one.members): one.logits for one in running_average_chunks(bundle, x)}


@pytest.mark.parametrize("kind", ["cpu", "device"])
def test_every_chunk_gets_the_reference_answer(bundle: Bundle, kind: str):
    bench, x, stream = Bench(executor_of(kind, bundle)), sequences(1), Stream(bundle.manifest)
    expected = reference(bundle, x)
    for number in range(CHUNKS):
        part = stream.extend(chunk(x, number))
        one = ticket(part, chunk(x, number))
        bench.admit(one)
        bench.drain()
        assert bench.settled[one] is StoppedBy.COMPLETE
        np.testing.assert_allclose(one.published.logits, expected[number + 1, 3], rtol=1e-5, atol=1e-5)
    assert bench.members() == [0, 1, 2] * CHUNKS


@pytest.mark.parametrize("kind", ["cpu", "device"])
def test_members_that_are_behind_catch_up_before_they_count(bundle: Bundle, kind: str):
    """Time for one member, then for two, then for all that is owed; the next chunk is always there at once."""
    bench, x, stream = Bench(executor_of(kind, bundle)), sequences(1), Stream(bundle.manifest)
    expected = reference(bundle, x)
    for number, (runs, done) in enumerate([(1.5, [1, 0, 0]), (3.5, [2, 2, 0]), (None, [3, 3, 3])]):
        one = bench.answer(stream, chunk(x, number), runs)
        members = sum(chunks == number + 1 for chunks in done)
        assert (one.published.members, stream.done) == (members, done)
        np.testing.assert_allclose(one.published.logits, expected[number + 1, members], rtol=1e-5, atol=1e-5)
    assert bench.members() == [0, 0, 1, 1, 0, 1, 2, 2, 2]


def test_who_cannot_catch_up_in_time_is_not_begun_for_that_deadline(bundle: Bundle):
    bench, x, stream = Bench(executor_of("cpu", bundle)), sequences(1), Stream(bundle.manifest)
    bench.answer(stream, chunk(x, 0), 1.5)
    one = bench.answer(stream, chunk(x, 1), 2.5)
    assert bench.settled[one] is StoppedBy.DEADLINE
    assert bench.members() == [0, 0], "member 1 owes two runs, and there was time for one"


def test_idle_time_catches_up(bundle: Bundle):
    bench, x, stream = Bench(executor_of("cpu", bundle)), sequences(1), Stream(bundle.manifest)
    expected = reference(bundle, x)
    one = bench.answer(stream, chunk(x, 0), 1.5)
    assert (one.published.members, stream.done) == (1, [1, 0, 0])
    bench.drain()
    assert stream.done == [1, 1, 1]
    assert len(bench.settled) == 1, "it is answered once"
    two = bench.answer(stream, chunk(x, 1), 3.5)
    assert two.published.members == 3
    np.testing.assert_allclose(two.published.logits, expected[2, 3], rtol=1e-5, atol=1e-5)


def test_a_chunk_without_an_answer_is_caught_up_before_anything_optional(bundle: Bundle):
    bench, x = Bench(executor_of("cpu", bundle)), sequences(2)
    late, other = Stream(bundle.manifest), Stream(bundle.manifest)
    one = bench.answer(late, chunk(x[:1], 0), 0.5)
    assert (one.published, bench.settled[one]) == (None, StoppedBy.DEADLINE)
    bench.admit(ticket(other.extend(chunk(x[1:], 0)), chunk(x[1:], 0)))
    assert [bench.step().member for _ in range(2)] == [0, 0]
    assert (other.done, late.done) == ([1, 0, 0], [1, 0, 0])
    bench.drain()
    expected = reference(bundle, x[:1])
    two = bench.answer(late, chunk(x[:1], 1), None)
    np.testing.assert_allclose(two.published.logits, expected[2, 3], rtol=1e-5, atol=1e-5)


def test_streams_at_different_chunks_share_a_step(bundle: Bundle):
    bench, x = Bench(executor_of("cpu", bundle)), sequences(2)
    young, old = Stream(bundle.manifest), Stream(bundle.manifest)
    bench.answer(old, chunk(x[1:], 0), None)
    bench.steps.clear()
    first = ticket(young.extend(chunk(x[:1], 0)), chunk(x[:1], 0))
    second = ticket(old.extend(chunk(x[1:], 1)), chunk(x[1:], 1))
    bench.admit(first, second)
    bench.drain()
    assert [(step.member, step.rows) for step in bench.steps] == [(0, 2), (1, 2), (2, 2)]
    np.testing.assert_allclose(first.published.logits, reference(bundle, x[:1])[1, 3], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(second.published.logits, reference(bundle, x[1:])[2, 3], rtol=1e-5, atol=1e-5)


def test_those_in_arrears_share_steps_as_far_as_a_batch_goes(bundle: Bundle):
    bench, x = Bench(executor_of("cpu", bundle), max_batch_rows=2), sequences(3)
    for row in range(3):
        bench.answer(Stream(bundle.manifest), chunk(x[row : row + 1], 0), 1.5)
    bench.steps.clear()
    bench.drain()
    assert sorted((step.member, step.rows) for step in bench.steps) == [(1, 1), (1, 2), (2, 1), (2, 2)]


@pytest.mark.parametrize("reason", [StoppedBy.ABANDONED, StoppedBy.SHUTDOWN])
def test_nothing_is_caught_up_for_a_stream_that_is_closed(bundle: Bundle, reason: StoppedBy):
    bench, x, stream = Bench(executor_of("cpu", bundle)), sequences(1), Stream(bundle.manifest)
    one = bench.answer(stream, chunk(x, 0), 1.5)
    bench.scheduler.cancel(one, reason)
    bench.drain()
    assert (bench.members(), stream.done) == ([0], [1, 0, 0])


def test_a_deadline_that_ends_the_wait_first_still_lets_it_be_caught_up(bundle: Bundle):
    """The event loop's alarm may be earlier than the scheduler: it cancels with the reason `deadline`."""
    bench, x, stream = Bench(executor_of("cpu", bundle)), sequences(1), Stream(bundle.manifest)
    one = ticket(stream.extend(chunk(x, 0)), chunk(x, 0))
    bench.admit(one)
    bench.step()
    bench.scheduler.cancel(one, StoppedBy.DEADLINE)
    bench.drain()
    assert (bench.settled[one], stream.done) == (StoppedBy.DEADLINE, [1, 1, 1])


def test_a_run_that_is_not_good_changes_nothing(bundle: Bundle):
    executor, x, stream = executor_of("cpu", bundle), sequences(1), Stream(bundle.manifest)
    part = stream.extend(chunk(x, 0))
    step = Step(KEY, 0, (ticket(part, chunk(x, 0)),), 1)
    found = [executor.run(step), executor.run(step)]
    assert stream.done == [0, 0, 0]
    np.testing.assert_array_equal(*found)
    assert part.advance(0)
    assert stream.done == [1, 0, 0]


def test_a_stream_holds_no_more_than_it_was_counted_with(bundle: Bundle):
    bench, x, stream = Bench(executor_of("cpu", bundle)), sequences(1), Stream(bundle.manifest)
    for number in range(CHUNKS):
        bench.answer(stream, chunk(x, number), 1.5)
        assert stream.held_bytes <= stream_bytes(bundle.manifest)
    assert stream.done == [CHUNKS, 0, 0]
    most = stream.held_bytes
    bench.drain()
    assert stream.done == [CHUNKS] * 3
    hidden_bytes = 3 * 5 * 4
    assert stream.held_bytes == hidden_bytes < most, "only the states are left"


def test_a_profile_is_cut_to_the_members_that_stream():
    whole = profile(0.7, 0.75, 0.8)
    assert whole.first(3) == whole
    cut = whole.first(2)
    assert (cut.accuracy, cut.ahead) == ((0.7, 0.75), (((0.7, 0.75),), ((0.75,),)))
    assert cut.after(1, [0.5]) == (0.7, 0.75)
