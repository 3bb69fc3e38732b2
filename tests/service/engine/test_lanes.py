"""Waves on the CPU against the reference evaluation, and against the same members one after another."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundle.reference import running_average
from service.engine.cpu import CpuExecutor
from service.engine.member import Arrays, CpuMember
from service.engine.step import Step
from service.engine.ticket import Ticket
from service.engine.waves import waves
from tests.fakes import ticket
from tests.service.engine.test_waves import wirings
from tests.tiny_dag import Links, write_dag

APART: Links = [[], [], [], []]


def wide(bundle: Any, threads: int = 2) -> CpuExecutor:
    executor = CpuExecutor(threads, side_by_side=True)
    executor.load("tiny/1", bundle)
    return executor


def joined(company: list[Ticket]) -> int:
    return sum(one.rows for one in company)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(links=wirings(), threads=st.integers(2, 4), sizes=st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_waves_give_each_request_the_numbers_of_the_reference(
    tmp_path_factory: pytest.TempPathFactory, links: Links, threads: int, sizes: list[int]
):
    bundle = write_dag(tmp_path_factory.mktemp("models"), links)
    executor, plain = wide(bundle, threads), CpuExecutor(1)
    plain.load("tiny/1", bundle)
    company, others = ([ticket(rows, seed=seed) for seed, rows in enumerate(sizes)] for _ in range(2))
    for wave in waves(bundle.manifest):
        step = Step("tiny/1", wave.start, tuple(company), joined(company), len(wave))
        outputs = executor.lanes.run(step) if len(wave) > 1 else [executor.run(step)]
        for member, logits in zip(wave, outputs, strict=True):
            assert len(logits) == joined(company)
            expected = plain.run(Step("tiny/1", member, tuple(others), joined(others)))
            np.testing.assert_allclose(logits, expected, atol=1e-5)
            start = 0
            for one in company:
                one.publish(member, logits[start : start + one.rows], "mean")
                start += one.rows
        for one, other in zip(company, others, strict=True):
            assert set(one.activations) == set(other.activations), "kept as long as it is read, and no longer"
    for one in company:
        *_, expected = running_average(bundle, one.inputs)
        np.testing.assert_allclose(one.published.logits, expected, atol=1e-5)


def test_members_of_a_wave_run_at_the_same_time(models: Path, monkeypatch: pytest.MonkeyPatch):
    executor = wide(write_dag(models, APART[:3]))
    both = threading.Barrier(2)
    compute = CpuMember.compute

    def meet(self: CpuMember, feed: Arrays, *, whole: bool) -> Arrays:
        both.wait(60)
        return compute(self, feed, whole=whole)

    monkeypatch.setattr(CpuMember, "compute", meet)
    assert len(list(executor.lanes.run(Step("tiny/1", 1, (ticket(),), 1, 2)))) == 2


def test_the_calling_thread_is_one_of_the_lanes_and_takes_what_nobody_has_begun(
    models: Path, monkeypatch: pytest.MonkeyPatch
):
    executor = wide(write_dag(models, APART))
    begun, go_on = threading.Event(), threading.Event()
    ran: list[tuple[int, bool]] = []
    compute = CpuMember.compute

    def one_is_slow(self: CpuMember, feed: Arrays, *, whole: bool) -> Arrays:
        own = threading.current_thread() is threading.main_thread()
        ran.append((self._index, own))
        if not own:
            begun.set()
            assert go_on.wait(60)
        elif len(ran) > 1 and self._index == 3:
            go_on.set()
        else:
            assert begun.wait(60)
        return compute(self, feed, whole=whole)

    monkeypatch.setattr(CpuMember, "compute", one_is_slow)
    assert len(list(executor.lanes.run(Step("tiny/1", 1, (ticket(),), 1, 3)))) == 3
    assert sorted(ran)[-1] == (3, True), "while another is still at one before it"
    assert [own for _, own in ran].count(False) == 1


def test_a_rehearsal_of_a_wave_leaves_nothing(models: Path):
    executor = wide(write_dag(models, [[], [0], [0], [1, 2]]))
    assert [logits.shape for logits in executor.lanes.run(Step("tiny/1", 1, (), 5, 2))] == [(5, 3), (5, 3)]


@pytest.mark.parametrize("bad", [1, 2, 3])
def test_a_member_that_raises_does_so_in_its_turn_and_frees_the_lanes(
    models: Path, monkeypatch: pytest.MonkeyPatch, bad: int
):
    executor = wide(write_dag(models, APART))
    compute = CpuMember.compute

    def fail(self: CpuMember, feed: Arrays, *, whole: bool) -> Arrays:
        if self._index == bad:
            raise RuntimeError("the lane caught fire")
        return compute(self, feed, whole=whole)

    monkeypatch.setattr(CpuMember, "compute", fail)
    ended = []
    with pytest.raises(RuntimeError, match="caught fire"):
        for logits in executor.lanes.run(Step("tiny/1", 1, (ticket(),), 1, 3)):
            ended.append(logits)
    assert len(ended) == bad - 1
    monkeypatch.undo()
    assert len(list(executor.lanes.run(Step("tiny/1", 1, (ticket(),), 1, 3)))) == 3


@pytest.mark.parametrize(("threads", "side_by_side"), [(1, True), (4, False)])
def test_there_are_no_lanes_without_threads_or_wish(threads: int, side_by_side: bool):
    assert CpuExecutor(threads, side_by_side=side_by_side).lanes is None


@pytest.mark.parametrize(("threads", "each"), [(2, 1), (3, 1), (6, 2), (9, 3)])
def test_threads_are_shared_out(models: Path, monkeypatch: pytest.MonkeyPatch, threads: int, each: int):
    opened: list[tuple[int, int]] = []
    init = CpuMember.__init__

    def note(self: CpuMember, bundle: Any, index: int, threads: int) -> None:
        opened.append((index, threads))
        init(self, bundle, index, threads)

    monkeypatch.setattr(CpuMember, "__init__", note)
    wide(write_dag(models, APART), threads)
    alone = [(index, count) for index in range(4) for count in (1, threads)]
    assert opened == [*alone, *((index, each) for index in (1, 2, 3))]


def test_an_unloaded_model_is_gone_from_the_lanes_too(models: Path):
    executor = wide(write_dag(models, APART))
    executor.unload("tiny/1")
    with pytest.raises(KeyError):
        next(executor.lanes.run(Step("tiny/1", 1, (), 1, 3)))
