"""Timely accuracy: right answers that arrived in time, over requests sent; open loop, from light load to overload.

One bundle, six ways to serve it: this server choosing the depth; this server held to the first member, or asked for all
stages or nothing; and a bare FastAPI server with the first member, with all stages one after the other, or with the
teacher. Loads are multiples of what this machine can do with all stages for every request.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from benchmarks.arguments import count, number
from benchmarks.machine import describe
from benchmarks.open_loop import Hit, Shot, bursts, fire
from benchmarks.recorded import images, record
from benchmarks.rest import await_rest
from benchmarks.server import body
from benchmarks.stolen import BEARABLE, TRIES, Stolen, undisturbed
from benchmarks.table import percentile
from benchmarks.timely_arms import OURS, STATIC, Arm, arms, take_priority
from benchmarks.timely_picture import draw
from benchmarks.timely_table import Cell, pool, tables, verdict

LOADS = (0.1, 0.5, 0.8, 1.2, 2.0, 3.0, 5.0)
DEADLINES_MS = {"20": (20.0,), "50": (50.0,), "100": (100.0,), "mixed": (20.0, 50.0, 100.0)}
SAMPLES = 2000
LEAST = 60
"""Requests of a cell, in each repetition: at light load it lasts until it holds them."""


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


def schedule(
    load: float, rate: float, deadlines: str, seconds: float, repetition: int, samples: int, together: int = 1
) -> Schedule:
    """What is asked in one cell, so many requests at an instant: the same of every arm, others in each repetition."""
    random = np.random.default_rng([*np.float64(load).tobytes(), repetition, *deadlines.encode()])
    times = bursts(load * rate, together, seconds, random, LEAST)
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
    stolen = Stolen()
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
        stolen=stolen.share(),
    )


def _composer(arm: Arm, image: npt.NDArray[np.uint8]) -> Callable[[float], bytes]:
    rest = body(image)[1:]

    def compose(left_ms: float) -> bytes:
        knobs = orjson.dumps(arm.knobs(max(0.1, left_ms)))[1:-1]
        return b"{" + (knobs + b"," if knobs else b"") + rest

    return compose


def _late_ms(hits: list[Hit]) -> float:
    return 1e3 * percentile([hit.sent_late_s for hit in hits], 0.99)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=number(0.01), default=3.0, help="length of one run, at least")
    parser.add_argument("--repetitions", type=count(), default=1)
    parser.add_argument("--loads", type=number(0.001), nargs="+", default=list(LOADS))
    parser.add_argument("--deadlines", nargs="+", choices=DEADLINES_MS, default=list(DEADLINES_MS))
    parser.add_argument("--together", type=count(), default=1, help="requests that come at one instant")
    parser.add_argument("--picture", type=Path, help="where to draw it")
    options = parser.parse_args(arguments)
    recording = record(SAMPLES, 0)
    print(f"### Timely accuracy\n\n{describe()}\n")
    if options.together > 1:
        print(f"Requests come {options.together} at an instant; the instants are a Poisson process.\n")
    cells: list[Cell] = []
    with tempfile.TemporaryDirectory() as folder, arms(Path(folder), recording, record(SAMPLES, 1)) as (served, rate):
        take_priority()
        # Arms in turn, so that a noisy minute of the machine hits all of them.
        for repetition, deadlines, load in product(range(options.repetitions), options.deadlines, options.loads):
            asked = schedule(load, rate, deadlines, options.seconds, repetition, SAMPLES, options.together)
            for arm in served:
                run = partial(measure, arm, load, deadlines, asked, recording.labels)
                # After overload one that cancels nothing has seconds of work left, and would do it beside the next.
                cells.append(undisturbed(run, before=lambda: await_rest({other.server.pid for other in served})))
        names = [arm.name for arm in served]
    pooled = pool(cells)
    print(tables(pooled, names, options.loads))
    print(
        f"\nOf {TRIES} runs the first was kept in which the machine's host took no more than {BEARABLE:.0%} of the "
        "processors' time, or else the one in which it took least; `stolen` is what it took, the most of all arms."
    )
    print(f"\n{verdict(pooled, OURS, STATIC)}")
    if options.picture:
        draw(options.picture, pooled, names, recording, describe())


if __name__ == "__main__":
    main()
