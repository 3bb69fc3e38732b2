from __future__ import annotations

import os
import time

import pytest

from benchmarks.rest import GIVE_UP_S, WINDOW_S, Restless, await_rest, cpu_s


class Machine:
    """Processes that work off what they have, on a clock that moves when it is slept on."""

    def __init__(self, **work_s: float) -> None:
        self.now = 100.0
        self._until = {int(name[1:]): self.now + seconds for name, seconds in work_s.items()}

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.now += seconds

    def used_s(self, pid: int) -> float:
        return min(self.now, self._until[pid]) + 0.01 * self.now


def test_idle_servers_are_waited_for_one_moment():
    machine = Machine(p1=0.0, p2=0.0)
    await_rest([1, 2], machine, machine.used_s)
    assert machine.now == pytest.approx(100.0 + WINDOW_S)


def test_the_busiest_of_the_servers_is_waited_for():
    machine = Machine(p1=0.0, p2=7.0)
    await_rest([1, 2], machine, machine.used_s)
    assert 107.0 <= machine.now <= 107.0 + 3 * WINDOW_S


def test_a_server_that_never_rests_is_given_up():
    machine = Machine(p1=2 * GIVE_UP_S)
    with pytest.raises(Restless, match="still at work 300 s after"):
        await_rest([1], machine, machine.used_s)


def test_cpu_time_of_a_process_is_that_of_its_threads():
    before, own = cpu_s(os.getpid()), time.thread_time()
    while time.thread_time() < own + 0.02:
        pass
    assert cpu_s(os.getpid()) - before > 0.01
