"""One thread or all of them, as was chosen for a batch size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bundle import Bundle
from service.engine import cpu
from service.engine.chunks import ChunkMember
from service.engine.cpu import CpuExecutor
from service.engine.member import CpuMember
from service.engine.step import Step
from service.engine.stream import stream_key
from service.engine.threaded import ThreadedMember
from tests.fakes import ticket
from tests.tiny_stream import write_stream


class Named:
    """A member that answers with the number of threads it was opened with."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def run(self, step: Step) -> np.ndarray:
        return np.full((step.rows, 1), self.threads, np.float32)


def threads_of(member: ThreadedMember, rows: int) -> int:
    logits = member.run(Step("tiny/1", 0, (), rows))
    assert len(logits) == rows
    return int(logits[0, 0])


def test_a_size_between_two_runs_as_the_larger_and_one_beyond_all_as_the_largest():
    member = ThreadedMember(Named, 4)
    assert threads_of(member, 3) == 1, "before anything is known"
    for rows, way in ((1, 0), (2, 1), (8, 0), (16, 1)):
        member.choose(rows, way)
    assert [threads_of(member, rows) for rows in (1, 2, 3, 8, 9, 16, 99)] == [1, 4, 1, 1, 4, 4, 4]
    member.choose(2, 0)
    assert threads_of(member, 2) == 1, "measured anew"


@pytest.mark.parametrize(("threads", "opened"), [(1, [1]), (4, [1, 4])])
def test_there_is_one_session_for_one_thread(threads: int, opened: list[int]):
    assert [way.threads for way in ThreadedMember(Named, threads).ways] == opened


def test_the_numbers_are_the_same_either_way(tiny: Bundle):
    executor = CpuExecutor(2)
    executor.load("tiny/1", tiny)
    answers = []
    for way in range(executor.ways("tiny/1", 0)):
        company = (ticket(2, seed=1), ticket(1, seed=2))
        for member in range(3):
            step = Step("tiny/1", member, company, 3)
            executor.choose(step, way)
            logits = executor.run(step)
        answers.append(logits)
    assert len(answers) == 2
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-6)


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
