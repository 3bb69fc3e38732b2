"""One thread or all of them, as was chosen for a batch size."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from bundle import Bundle
from bundle.reference import running_average
from service.engine import cpu
from service.engine.chunks import ChunkMember
from service.engine.cpu import CpuExecutor
from service.engine.halt import Halt
from service.engine.member import Arrays, CpuMember
from service.engine.spread import SpreadMember
from service.engine.step import Step
from service.engine.stream import stream_key
from service.engine.threaded import ThreadedMember
from tests.fakes import ticket
from tests.tiny_stream import write_stream


class Named:
    """A way that answers with its number."""

    def __init__(self, number: int) -> None:
        self._number = number

    def run(self, step: Step) -> np.ndarray:
        return np.full((step.rows, 1), self._number, np.float32)


def way_of(member: ThreadedMember, rows: int, *, on_one_thread: bool = False) -> int:
    logits = member.run(Step("tiny/1", 0, (), rows, on_one_thread=on_one_thread))
    assert len(logits) == rows
    return int(logits[0, 0])


def test_a_size_between_two_runs_as_the_larger_and_one_beyond_all_as_the_largest():
    member = ThreadedMember([Named(0), Named(1)])
    assert way_of(member, 3) == 0, "before anything is known"
    for rows, way in ((1, 0), (2, 1), (8, 0), (16, 1)):
        member.choose(rows, way)
    assert [way_of(member, rows) for rows in (1, 2, 3, 8, 9, 16, 99)] == [0, 1, 0, 0, 1, 1, 1]
    assert way_of(member, 99, on_one_thread=True) == 0
    member.choose(2, 0)
    assert way_of(member, 2) == 0, "measured anew"


@pytest.mark.parametrize(
    ("threads", "ways"), [(1, [CpuMember]), (4, [CpuMember, SpreadMember, CpuMember])], ids=["one", "four"]
)
def test_there_is_one_way_on_one_thread(tiny: Bundle, threads: int, ways: list[type]):
    executor = CpuExecutor(threads)
    executor.load("tiny/1", tiny)
    assert [type(way) for way in executor._members["tiny/1"][0].ways] == ways
    assert executor.ways("tiny/1", 0) == len(ways)


@pytest.mark.parametrize("rows", [1, 2, 7, 40])
@pytest.mark.parametrize("threads", [2, 3])
def test_each_way_gives_the_numbers_of_the_reference(tiny: Bundle, threads: int, rows: int):
    executor = CpuExecutor(threads)
    executor.load("tiny/1", tiny)
    for way in range(executor.ways("tiny/1", 0)):
        company = (ticket(rows, seed=1), ticket(3, seed=2))
        expected = [list(running_average(tiny, one.inputs)) for one in company]
        for member in range(3):
            step = Step("tiny/1", member, company, rows + 3)
            executor.choose(step, way)
            logits = executor.run(step)
            assert logits.shape == (rows + 3, 3)
            for one, own, prefixes in zip(company, (logits[:rows], logits[rows:]), expected, strict=True):
                one.publish(member, own, "mean")
                np.testing.assert_allclose(one.published.logits, prefixes[member], atol=1e-5)
        assert all(not one.activations for one in company), "nothing is kept that nobody reads"


def test_a_rehearsal_leaves_nothing_whichever_way(tiny: Bundle):
    executor = CpuExecutor(2)
    executor.load("tiny/1", tiny)
    for way in range(3):
        step = Step("tiny/1", 1, (), 9)
        executor.choose(step, way)
        assert executor.run(step).shape == (9, 3)


@pytest.mark.parametrize("way", [0, 1, 2])
def test_a_run_that_is_given_up_has_changed_nothing_whichever_way(tiny: Bundle, way: int):
    executor, one = CpuExecutor(2), ticket(9, seed=1)
    executor.load("tiny/1", tiny)
    step = Step("tiny/1", 0, (one,), 9)
    executor.choose(step, way)
    one.publish(0, executor.run(step), "mean")
    held, halt = dict(one.activations), Halt()
    halt()
    second = Step("tiny/1", 1, (one,), 9)
    executor.choose(second, way)
    with pytest.raises(Exception, match="terminate"):
        executor.run(second._replace(halt=halt))
    assert one.activations == held
    one.publish(1, executor.run(second._replace(halt=Halt())), "mean")
    np.testing.assert_allclose(one.published.logits, list(running_average(tiny, one.inputs))[1], atol=1e-5)


def test_threads_share_the_operators_of_a_single_row(tiny: Bundle, monkeypatch: pytest.MonkeyPatch):
    executor, run = CpuExecutor(2), list[int]()
    executor.load("tiny/1", tiny)
    _, shared_out, several = executor._members["tiny/1"][0].ways
    monkeypatch.setattr(several, "run", lambda step: run.append(step.rows))
    for rows in (1, 2):
        shared_out.run(Step("tiny/1", 0, (), rows))
    assert run == [1]


@pytest.mark.parametrize("bad", [0, 1])
def test_a_block_that_fails_does_so_when_all_have_ended(tiny: Bundle, monkeypatch: pytest.MonkeyPatch, bad: int):
    executor = CpuExecutor(2)
    executor.load("tiny/1", tiny)
    step = Step("tiny/1", 0, (one := ticket(6),), 6)
    executor.choose(step, 1)
    compute, both, ended = CpuMember.compute_into, threading.Barrier(2), []
    here = threading.current_thread()

    def fail(self: CpuMember, outputs: Arrays, feed: Arrays, halt: Halt | None) -> None:
        if not ended:
            both.wait(60)
        try:
            if (threading.current_thread() is here) == (bad == 0):
                raise RuntimeError("the block caught fire")
            compute(self, outputs, feed, halt)
        finally:
            ended.append(len(feed))

    monkeypatch.setattr(CpuMember, "compute_into", fail)
    with pytest.raises(RuntimeError, match="caught fire"):
        executor.run(step)
    assert not one.activations, "it has changed nothing"
    monkeypatch.undo()
    assert executor.run(step).shape == (6, 3)


def test_chunk_graphs_have_both_ways_too(models: Path, monkeypatch: pytest.MonkeyPatch):
    streamed = write_stream(models)
    opened: list[tuple[type, int]] = []

    def note(kind: type):
        return lambda *args: opened.append((kind, args[-1]))

    monkeypatch.setattr(cpu, "CpuMember", note(CpuMember))
    monkeypatch.setattr(cpu, "ChunkMember", note(ChunkMember))
    executor = CpuExecutor(3)
    executor.load("stream/1", streamed)
    count = len(streamed.manifest.members)
    assert opened == [(CpuMember, 1), (CpuMember, 3)] * count + [(ChunkMember, 1), (ChunkMember, 3)] * count
    assert executor.ways(stream_key("stream/1"), 0) == 2
    executor.unload("stream/1")
    with pytest.raises(KeyError):
        executor.ways(stream_key("stream/1"), 0)
