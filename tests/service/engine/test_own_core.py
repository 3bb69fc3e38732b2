from __future__ import annotations

import errno
import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import pytest

from service.engine import own_core
from service.engine.cpu import CpuExecutor
from service.engine.own_core import CONTESTED, FREE_S, LOOK_INTERVAL_S, OwnCore, like_the_process
from service.engine.worker import Worker
from tests.fakes import FakeClock

ALLOWED = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}
pytestmark = pytest.mark.skipif(len(ALLOWED) < 2 or not own_core.WAITED.exists(), reason="needs Linux and two cores")


@pytest.fixture
def device() -> Iterator[Callable[[Callable[[], object]], object]]:
    """Runs what it is given on a thread of its own, which is not the main thread."""
    with ThreadPoolExecutor(1, "device") as thread:
        yield lambda function: thread.submit(function).result(60)
    assert os.sched_getaffinity(0) == ALLOWED, "the main thread may run where it could before"


def cores() -> set[int]:
    return os.sched_getaffinity(0)


@pytest.fixture
def schedule(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds for which the thread has run, and waited, as the test says."""
    told = [0.0, 0.0]
    monkeypatch.setattr(own_core, "_schedule", lambda: (told[0], told[1]))
    return told


def test_the_thread_has_a_core_to_itself_as_long_as_it_keeps_it(device: Callable):
    with ThreadPoolExecutor(1) as bystander:
        assert bystander.submit(cores).result(60) == ALLOWED
        subject = OwnCore(len(ALLOWED), FakeClock())
        device(subject.__enter__)
        assert subject.kept
        own = device(cores)
        assert len(own) == 1
        assert own < ALLOWED
        assert cores() == ALLOWED - own
        assert bystander.submit(cores).result(60) == ALLOWED - own
        device(lambda: subject.__exit__(None, None, None))
        assert not subject.kept
        assert device(cores) == ALLOWED
        assert bystander.submit(cores).result(60) == ALLOWED


def test_it_is_the_one_that_linux_had_chosen(device: Callable):
    own = max(ALLOWED)
    device(lambda: os.sched_setaffinity(0, {own}))

    def kept() -> set[int]:
        with OwnCore(len(ALLOWED), FakeClock()):
            return cores()

    assert device(kept) == {own}


def test_threads_that_it_starts_run_on_the_other_cores(device: Callable):
    def started() -> tuple[set[int], set[int]]:
        with OwnCore(len(ALLOWED), FakeClock()), ThreadPoolExecutor(1, initializer=like_the_process) as pool:
            return cores(), pool.submit(cores).result(60)

    own, others = device(started)
    assert others == ALLOWED - own


def test_threads_that_share_its_work_are_not_on_its_core(device: Callable):
    executor = CpuExecutor(len(ALLOWED), side_by_side=True)
    assert executor.threads == len(ALLOWED)

    def helping() -> list[bool]:
        with OwnCore(executor.threads, FakeClock()):
            others = ALLOWED - cores()
            return [pool.submit(cores).result(60) == others for pool in (executor._pool, executor.lanes._pool)]

    assert device(helping) == [True, True]


def test_where_there_are_more_cores_than_compute_linux_finds_an_idle_one(device: Callable):
    with OwnCore(len(ALLOWED) - 1, FakeClock()) as subject:
        assert not subject.kept
        assert cores() == ALLOWED


@pytest.mark.parametrize(
    ("ran", "waited", "kept"),
    [
        (0.9, 0.0, True),
        (0.8, 0.8 * CONTESTED, True),
        (0.5, 0.5, False),
        pytest.param(0.01, 0.01, True, id="of little that it wanted"),
    ],
)
def test_a_core_that_somebody_else_computes_on_is_given_up_for_a_while(
    device: Callable, schedule: list[float], ran: float, waited: float, kept: bool
):
    clock = FakeClock()
    subject = OwnCore(len(ALLOWED), clock)
    device(subject.__enter__)
    schedule[:] = [ran, waited]
    device(subject.look)
    assert subject.kept, "it has just looked"
    clock.advance(LOOK_INTERVAL_S)
    device(subject.look)
    assert subject.kept == kept
    assert (cores() == ALLOWED) != kept
    if not kept:
        clock.advance(FREE_S - 0.1)
        device(subject.look)
        assert not subject.kept
        clock.advance(0.1)
        device(subject.look)
        assert subject.kept
        clock.advance(LOOK_INTERVAL_S)
        device(subject.look)
        assert subject.kept, "what it had waited before is over"
    device(lambda: subject.__exit__(None, None, None))


def test_each_look_is_at_the_time_since_the_last(device: Callable, schedule: list[float]):
    clock = FakeClock()
    subject = OwnCore(len(ALLOWED), clock)
    device(subject.__enter__)
    for _ in range(3):
        clock.advance(LOOK_INTERVAL_S)
        schedule[0] += 0.9
        device(subject.look)
    clock.advance(LOOK_INTERVAL_S)
    schedule[:] = [schedule[0] + 0.5, 0.5]
    device(subject.look)
    assert not subject.kept, "a second of waiting is not lost among those before"
    device(lambda: subject.__exit__(None, None, None))


def test_where_no_more_files_can_be_opened_it_waits_until_they_can(
    device: Callable, schedule: list[float], monkeypatch: pytest.MonkeyPatch
):
    clock = FakeClock()
    subject = OwnCore(len(ALLOWED), clock)
    device(subject.__enter__)
    own, open_files = device(cores), own_core._schedule

    def too_many() -> tuple[float, float]:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(own_core, "_schedule", too_many)
    clock.advance(LOOK_INTERVAL_S)
    device(subject.look)
    assert subject.kept
    monkeypatch.setattr(own_core, "_schedule", open_files)
    for folder, kept in ((Path("/absent"), True), (own_core.TASKS, False)):
        monkeypatch.setattr(own_core, "TASKS", folder)
        clock.advance(LOOK_INTERVAL_S)
        schedule[:] = [schedule[0] + 0.5, schedule[1] + 0.5]
        device(subject.look)
        assert subject.kept == kept
        assert cores() == (ALLOWED - own if kept else ALLOWED)
        device(subject.__enter__)
        assert subject.kept, "also by a thread that comes after one that could not give it up"
    device(lambda: subject.__exit__(None, None, None))


def test_without_linux_nothing_is_kept(device: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(own_core, "WAITED", tmp_path / "absent")
    clock = FakeClock()
    with OwnCore(len(ALLOWED), clock) as subject:
        clock.advance(FREE_S)
        subject.look()
        assert not subject.kept
    monkeypatch.delattr(os, "sched_getaffinity")
    with OwnCore(len(ALLOWED), clock) as subject:
        assert not subject.kept
    like_the_process()


def test_a_worker_keeps_it_while_its_thread_runs_and_no_longer():
    told: list[tuple[str, str]] = []

    class Told(OwnCore):
        def _claim(self, now: float) -> None:
            told.append(("kept", threading.current_thread().name))
            self._due = math.inf

        def _free(self) -> None:
            told.append(("freed", threading.current_thread().name))

    scheduler = Mock(**{"take_settled.return_value": [], "next_step.side_effect": KeyError})
    died = Mock(side_effect=lambda: told.append(("died", "")))
    worker = Worker(Mock(), scheduler, Mock(), FakeClock(), Mock(), Mock(), died)
    worker.own_core = Told(2, FakeClock())
    worker.start()
    worker._thread.join(60)
    assert told == [("kept", "device"), ("freed", "device"), ("died", "")], "what comes after it finds all cores"
