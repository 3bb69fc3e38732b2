from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from service.engine import slices
from service.engine.cores import compute_threads, cores


@pytest.fixture(autouse=True)
def of_eight(monkeypatch: pytest.MonkeyPatch):
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system has no affinity")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "350000 100000\n"}, 3),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "6400000 100000\n"}, 8),
        ({"cpu.max": "nonsense\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
    ],
)
def test_a_container_has_the_cores_that_it_is_granted(tmp_path: Path, files: dict[str, str], expected: int):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert cores(tmp_path) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the affinity")
def test_a_process_has_the_cores_it_is_bound_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert cores(tmp_path) == 2


@pytest.mark.parametrize(("granted", "left"), [(True, 0), (False, 1)])
def test_a_core_is_left_to_an_event_loop_that_would_not_get_one_otherwise(
    monkeypatch: pytest.MonkeyPatch, granted: bool, left: int
):
    monkeypatch.setattr(slices, "granted", lambda: granted)
    assert compute_threads() == cores() - left
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert compute_threads() == 1
