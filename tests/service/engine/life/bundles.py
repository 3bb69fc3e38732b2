"""What is served, and where it runs."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp

from bundle import Bundle
from service.engine.cpu import CpuExecutor
from service.engine.cuda import DeviceExecutor
from service.engine.executor import Executor
from service.engine.providers import CPU
from tests.tiny_dag import write_dag
from tests.tiny_stream import write_stream

STREAM = "stream/1"


@lru_cache
def bundles() -> dict[str, Bundle]:
    """A chain, members apart, a mixture, and one whose last member replaces the answer at any depth."""
    wirings = {
        "chain/1": (((), (0,), (1,), (2,)), "mean"),
        "apart/1": (((), (), (), ()), "mean"),
        "mixed/1": (((), (0,), (0, 1), (0,), (0, 3)), "mean"),
        "jumps/1": (((), (0,), (0, 1), ()), "replace"),
    }
    folder = Path(mkdtemp())
    found = {key: write_dag(folder / key, links, last) for key, (links, last) in wirings.items()}
    return {**found, STREAM: write_stream(folder / "stream")}


@lru_cache
def executor_of(kind: str) -> Executor:
    executor: Executor = {
        "one": lambda: CpuExecutor(threads=1),
        "spread": lambda: CpuExecutor(threads=3, side_by_side=True),
        "device": lambda: DeviceExecutor(CPU, "cpu"),
    }[kind]()
    for key, bundle in bundles().items():
        executor.load(key, bundle)
        if executor.fusion is not None:
            executor.fusion.load(key, bundle, groups_of(key))
    return executor


def groups_of(key: str) -> list[range]:
    """All members that may ever be run in one go."""
    members = len(bundles()[key].manifest.members)
    return [range(start, stop) for start in range(1, members) for stop in range(start + 2, members + 1)]
