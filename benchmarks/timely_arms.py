"""The ways to serve that timely accuracy compares, all of the same stages, all up at once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.recorded import MEMBERS, Recording, calibrated, write_recorded, write_teacher
from benchmarks.rivals.serving import serving_bare
from benchmarks.server import Running, Wire, serving

STAGES = MEMBERS + 1
OURS, SHALLOW, DEMANDING = "this server", "this server, depth 1", "this server, all demanded"
FIRST, ALL, TEACHER = "bare, first member", "bare, all stages", "bare, teacher"
STATIC = (SHALLOW, FIRST, ALL, TEACHER)
"""Arms whose depth does not depend on the load. One that demands all members is none: it refuses whom it cannot serve
so."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A way to serve."""

    name: str
    server: Running
    knobs: Callable[[float], dict[str, Any]]
    """Fields of a request, given its deadline in milliseconds."""


def take_priority() -> None:
    """Let the client measure the servers and not itself, where it may: in earnest it is another machine."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


@contextlib.contextmanager
def arms(
    folder: Path, recording: Recording, fitted: Recording, max_batch_rows: int = 64
) -> Iterator[tuple[list[Arm], float]]:
    """The servers, all up at once; and requests a second of full depth.

    Args:
        folder: for the bundles.
        recording: what they answer.
        fitted: what they are calibrated on.
        max_batch_rows: of this server.
    """
    bundle = write_recorded(folder, recording, calibrated(recording, fitted))
    with (
        serving(folder, models=bundle.manifest.name, max_batch_rows=max_batch_rows, max_queue_rows=4096) as server,
        serving_bare(bundle, 1) as first,
        serving_bare(bundle, STAGES) as whole,
        serving_bare(write_teacher(folder, recording), 1) as teacher,
    ):
        wire = Wire(server.address)
        stages_ms = [member["median_ms"] for member in wire.get("/models")["models"][0]["members"]]
        wire.close()
        print(f"Stages of {', '.join(f'{stage:.2f}' for stage in stages_ms)} ms; ", end="")
        print(f"their prefixes are right {', '.join(f'{100 * right:.1f}' for right in recording.accuracy())} % of the")
        print(f"time. Load 1 is {1e3 / sum(stages_ms):.1f} requests a second.\n")
        yield (
            [
                Arm(OURS, server, lambda ms: {"deadline_ms": ms}),
                Arm(SHALLOW, server, lambda ms: {"deadline_ms": ms, "max_members": 1}),
                Arm(DEMANDING, server, lambda ms: {"deadline_ms": ms, "min_members": STAGES}),
                Arm(FIRST, first, lambda _: {}),
                Arm(ALL, whole, lambda _: {}),
                Arm(TEACHER, teacher, lambda _: {}),
            ],
            1e3 / sum(stages_ms),
        )
