from __future__ import annotations

import platform
import sys
import threading
from collections.abc import Callable
from unittest.mock import Mock

import pytest

from service.engine import host, slices
from service.engine.worker import Worker


def in_a_thread(function: Callable[[], bool]) -> bool:
    """What is changed is the thread's own."""
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in slices.SCHED_SETATTR, reason="only Linux has slices"
)
@pytest.mark.parametrize("function", [slices.shorten, slices.restore])
def test_linux_takes_the_request(function: Callable[[], bool]):
    assert in_a_thread(function)


def test_the_device_thread_does_not_inherit_them(monkeypatch: pytest.MonkeyPatch):
    restored_by = []
    monkeypatch.setattr(slices, "restore", lambda: restored_by.append(threading.current_thread().name))
    worker = Worker(Mock(), Mock(**{"take_settled.return_value": []}), Mock(), Mock(), Mock(), Mock())
    worker.start()
    worker.stop()
    assert restored_by == ["device"]


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "machine", lambda: "another")
    assert not slices.shorten()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has policies")
def test_an_operators_policy_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(slices.os, "sched_getscheduler", lambda _: slices.os.SCHED_RR)
    assert not slices.shorten()


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in slices.SCHED_SETATTR, reason="only Linux has slices"
)
def test_asking_whether_they_would_be_granted_leaves_the_systems_own(monkeypatch: pytest.MonkeyPatch):
    asked: list[float] = []
    ask = slices._ask
    monkeypatch.setattr(slices, "_ask", lambda seconds: asked.append(seconds) or ask(seconds))
    assert in_a_thread(slices.granted)
    assert asked == [slices.SHORT_S, 0.0]


def test_what_a_load_starts_does_not_inherit_them(monkeypatch: pytest.MonkeyPatch):
    order: list[str] = []
    monkeypatch.setattr(slices, "restore", lambda: order.append("restored"))
    executor = Mock(**{"load.side_effect": lambda *_: order.append("loaded")})
    host._load(executor, "tiny/1", Mock())
    assert order == ["restored", "loaded"]
