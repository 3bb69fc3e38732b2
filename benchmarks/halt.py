"""How soon a step that is given up has ended: from the call until the executor raises, on a thread of its own.

The first and the last stage of the bundle of `benchmarks.timely`, called off when a third of their time has passed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.arguments import count
from benchmarks.machine import describe
from benchmarks.recorded import calibrated, record, write_recorded
from benchmarks.table import percentile, render
from service.engine.cpu import CpuExecutor
from service.engine.halt import Halt
from service.engine.step import Step

SAMPLES = 300
THREADS = (1, 2)
WAYS = {1: 0, 2: 2}
"""Of `CpuExecutor.ways`: one thread, or all on the work of each operator."""
SHARE = 1 / 3


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=count(), default=40)
    options = parser.parse_args(arguments)
    print(f"### Steps that are given up\n\n{describe()}\n")
    rows = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
        recording = record(SAMPLES, 0)
        bundle = write_recorded(Path(folder), recording, calibrated(recording, record(SAMPLES, 1)))
        for threads in THREADS:
            executor = CpuExecutor(threads)
            executor.load("timely", bundle)
            for member in (0, len(bundle.manifest.members) - 1):
                step = Step("timely", member, (), 1)
                executor.choose(step, WAYS[threads])
                whole_s = percentile([_run(executor, step) for _ in range(options.runs)], 0.5)
                ended_s = [_call_off(executor, step, whole_s, pool) for _ in range(options.runs)]
                early = [seconds for seconds in ended_s if seconds is not None]
                times = [f"{percentile(early, share) * 1e3:.2f}" if early else "-" for share in (0.5, 0.9)]
                rows.append((threads, member, f"{whole_s * 1e3:.2f}", *times, f"{len(early)} of {options.runs}"))
    print(render(("threads", "member", "whole ms", "ended after ms p50", "p90", "given up"), rows))


def _run(executor: CpuExecutor, step: Step) -> float:
    begun = time.perf_counter()
    executor.run(step)
    return time.perf_counter() - begun


def _call_off(executor: CpuExecutor, step: Step, whole_s: float, pool: ThreadPoolExecutor) -> float | None:
    """Seconds from the call until the step had ended early; None: it ran to its end."""
    halt = Halt()

    def run() -> tuple[bool, float]:
        try:
            executor.run(step._replace(halt=halt))
        except Exception:
            return True, time.perf_counter()
        return False, time.perf_counter()

    running = pool.submit(run)
    time.sleep(SHARE * whole_s)
    called = time.perf_counter()
    halt()
    early, ended = running.result()
    return ended - called if early else None


if __name__ == "__main__":
    main()
