"""Timely accuracy: right answers that arrived in time, over requests sent; open loop, from light load to overload.

One bundle, five ways to serve it: this server choosing the depth; this server held to the first member, or to all
stages; and a bare FastAPI server with the first member, or with the teacher. Loads are multiples of what this machine
can do with all stages for every request.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from benchmarks.machine import describe
from benchmarks.open_loop import Hit, Shot, fire, poisson
from benchmarks.recorded import MEMBERS, Recording, calibrated, images, record, write_recorded, write_teacher
from benchmarks.rest import await_rest
from benchmarks.rivals.serving import serving_bare
from benchmarks.server import Running, Wire, body, serving
from benchmarks.table import percentile, render
from benchmarks.timely_picture import draw

LOADS = (0.1, 0.5, 0.8, 1.2, 2.0, 3.0, 5.0)
DEADLINES_MS = {"20": (20.0,), "50": (50.0,), "100": (100.0,), "mixed": (20.0, 50.0, 100.0)}
SAMPLES = 2000
STAGES = MEMBERS + 1
LEAST = 60
"""Requests of a cell, in each repetition: at light load it lasts until it holds them."""


@dataclass(frozen=True, slots=True)
class Arm:
    """A way to serve."""

    name: str
    server: Running
    knobs: Callable[[float], dict[str, Any]]
    """Fields of a request, given its deadline in milliseconds."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Requests of one cell."""

    times: npt.NDArray[np.float64]
    """(requests,), seconds after the start, ascending."""
    numbers: npt.NDArray[np.intp]
    """(requests,), of the samples."""
    budgets_ms: npt.NDArray[np.float64]
    """(requests,)"""


Send = Callable[[str, Sequence[Shot]], list[Hit]]
"""To an address; what came of each shot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What one arm made of one load at one choice of deadlines."""

    arm: str
    load: float
    deadlines: str
    sent: int
    timely_right: int
    timely: int
    answered: int
    refused: int
    members: float
    """Mean over answers; 0 for a server that does not say."""
    client_late_ms: float
    """99th percentile of how late the client itself was."""


def take_priority() -> None:
    """Let the client measure the servers and not itself, where it may: in earnest it is another machine."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


@contextlib.contextmanager
def arms(folder: Path, recording: Recording) -> Iterator[tuple[list[Arm], float]]:
    """The servers, all up at once; and requests a second of full depth."""
    bundle = write_recorded(folder, recording, calibrated(recording, record(SAMPLES, 1)))
    with (
        serving(folder, models=bundle.manifest.name, max_queue_rows=4096) as server,
        serving_bare(bundle, 1) as first,
        serving_bare(write_teacher(folder, recording), 1) as teacher,
    ):
        take_priority()
        wire = Wire(server.address)
        stages_ms = [member["median_ms"] for member in wire.get("/models")["models"][0]["members"]]
        wire.close()
        print(f"Stages of {', '.join(f'{stage:.2f}' for stage in stages_ms)} ms; ", end="")
        print(f"their prefixes are right {', '.join(f'{100 * right:.1f}' for right in recording.accuracy())} % of the")
        print(f"time. Load 1 is {1e3 / sum(stages_ms):.1f} requests a second.\n")
        yield (
            [
                Arm("this server", server, lambda ms: {"deadline_ms": ms}),
                Arm("depth 1", server, lambda ms: {"deadline_ms": ms, "max_members": 1}),
                Arm("full depth", server, lambda ms: {"deadline_ms": ms, "min_members": STAGES}),
                Arm("bare, first member", first, lambda _: {}),
                Arm("bare, teacher", teacher, lambda _: {}),
            ],
            1e3 / sum(stages_ms),
        )


def schedule(load: float, rate: float, deadlines: str, seconds: float, repetition: int, samples: int) -> Schedule:
    """What is asked in one cell: the same of every arm, other requests in each repetition."""
    random = np.random.default_rng([*np.float64(load).tobytes(), repetition, *deadlines.encode()])
    times = poisson(load * rate, seconds, random, LEAST)
    return Schedule(
        times,
        numbers=random.integers(0, samples, len(times)),
        budgets_ms=random.choice(DEADLINES_MS[deadlines], len(times)),
    )


def measure(
    arm: Arm, load: float, deadlines: str, asked: Schedule, labels: npt.NDArray[Any], send: Send = fire
) -> Cell:
    """One run of one arm."""
    shots = [
        Shot(float(at), "/predict", _composer(arm, images(np.array([number]))), float(ms) / 1e3)
        for at, number, ms in zip(asked.times, asked.numbers, asked.budgets_ms, strict=True)
    ]
    hits = send(arm.server.address, shots)
    answers = [orjson.loads(hit.content) if hit.status == 200 else None for hit in hits]
    timely = [hit.status == 200 and hit.seconds <= shot.deadline_s for hit, shot in zip(hits, shots, strict=True)]
    right = [
        answer is not None and answer["predictions"][0]["index"] == labels[number]
        for answer, number in zip(answers, asked.numbers, strict=True)
    ]
    used = [answer.get("members_used", 0) for answer in answers if answer is not None]
    return Cell(
        arm=arm.name,
        load=load,
        deadlines=deadlines,
        sent=len(shots),
        timely_right=sum(ok and good for ok, good in zip(timely, right, strict=True)),
        timely=sum(timely),
        answered=len(used),
        refused=sum(hit.status in {503, 504} for hit in hits),
        members=float(np.mean(used)) if used else 0.0,
        client_late_ms=_late_ms(hits),
    )


def _composer(arm: Arm, image: npt.NDArray[np.uint8]) -> Callable[[float], bytes]:
    rest = body(image)[1:]

    def compose(left_ms: float) -> bytes:
        knobs = orjson.dumps(arm.knobs(max(0.1, left_ms)))[1:-1]
        return b"{" + (knobs + b"," if knobs else b"") + rest

    return compose


def _late_ms(hits: list[Hit]) -> float:
    return 1e3 * percentile([hit.sent_late_s for hit in hits], 0.99)


def pool(cells: list[Cell]) -> dict[tuple[str, str, float], Cell]:
    """Repetitions of a cell as one, by (deadlines, arm, load)."""
    found: dict[tuple[str, str, float], list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell.deadlines, cell.arm, cell.load), []).append(cell)
    return {key: _sum(parts) for key, parts in found.items()}


def _sum(parts: list[Cell]) -> Cell:
    def total(name: str) -> int:
        return sum(getattr(part, name) for part in parts)

    answered = total("answered")
    return Cell(
        arm=parts[0].arm,
        load=parts[0].load,
        deadlines=parts[0].deadlines,
        sent=total("sent"),
        timely_right=total("timely_right"),
        timely=total("timely"),
        answered=answered,
        refused=total("refused"),
        members=sum(part.members * part.answered for part in parts) / max(1, answered),
        client_late_ms=max(part.client_late_ms for part in parts),
    )


def tables(cells: dict[tuple[str, str, float], Cell], names: list[str], loads: list[float]) -> str:
    """A table of timely accuracy for each choice of deadlines, with this server's details."""
    parts = []
    for deadlines in dict.fromkeys(key[0] for key in cells):
        rows = []
        for load in loads:
            row = [cells[deadlines, name, load] for name in names]
            ours = row[0]
            rows.append(
                (
                    f"{load:g}",
                    *(f"{cell.timely_right / max(1, cell.sent):.3f}" for cell in row),
                    f"{ours.members:.2f}",
                    f"{100 * ours.refused / max(1, ours.sent):.1f} %",
                    f"{100 * ours.timely / max(1, ours.answered):.2f} %",
                    f"{max(cell.client_late_ms for cell in row):.1f}",
                )
            )
        header = ("load", *names, "members", "refused", "answers in time", "client late p99 ms")
        parts.append(f"Deadline {deadlines} ms:\n\n{render(header, rows)}")
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one run, at least")
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--loads", type=float, nargs="+", default=list(LOADS))
    parser.add_argument("--deadlines", nargs="+", choices=DEADLINES_MS, default=list(DEADLINES_MS))
    parser.add_argument("--picture", type=Path, help="where to draw it")
    options = parser.parse_args()
    recording = record(SAMPLES, 0)
    print(f"### Timely accuracy\n\n{describe()}\n")
    cells: list[Cell] = []
    with tempfile.TemporaryDirectory() as folder, arms(Path(folder), recording) as (served, rate):
        # Arms in turn, so that a noisy minute of the machine hits all of them.
        for repetition, deadlines, load in product(range(options.repetitions), options.deadlines, options.loads):
            asked = schedule(load, rate, deadlines, options.seconds, repetition, SAMPLES)
            for arm in served:
                # After overload one that cancels nothing has seconds of work left, and would do it beside the next.
                await_rest({other.server.pid for other in served})
                cells.append(measure(arm, load, deadlines, asked, recording.labels))
        names = [arm.name for arm in served]
    pooled = pool(cells)
    print(tables(pooled, names, options.loads))
    if options.picture:
        draw(options.picture, pooled, names, recording, describe())


if __name__ == "__main__":
    main()
