"""Open question 1: what each kind of connection is worth, and what it costs."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from training import picture
from training.config import RecipeConfig
from training.connections import Kind
from training.reproduce import arms
from training.reproduce.experiment import Arm, Cell, Experiment
from training.reproduce.figure3 import connected
from training.reproduce.prefixes import Points
from training.reproduce.series import Series, draw_by_flops
from training.reproduce.table import markdown, percent, spread
from training.reproduce.timing import BATCHES

DATA_SETS = ("digits", "ellipsoid", "cube")
KINDS: tuple[Kind, ...] = get_args(Kind)
NONE = "none"
STYLES = dict(zip(KINDS, ("v:", "o-", "s-", "d-", "x-"), strict=True))
COLOURS = dict(zip(KINDS, (picture.GREY, picture.BLUE, picture.ORANGE, picture.GREEN, picture.PURPLE), strict=True))


def unconnected(config: RecipeConfig) -> RecipeConfig:
    """The recipe with members that see nobody."""
    return dataclasses.replace(config, connection="none", first_expansion=0)


def report(cells: Sequence[Cell]) -> str:
    """One row for each data set and kind, against no connection."""
    header = [
        "data",
        "connection",
        "accuracy %, all members",
        "gain over none",
        "mean gain over the prefixes",
        "FLOPs over none",
        *(f"time over none, batch {batch}" for batch in BATCHES),
        "in sequence",
        "seeds",
    ]
    rows = [row for data_set in DATA_SETS for row in _rows(data_set, cells)]
    return "\n\n".join([_EXPLANATION, markdown(header, rows)])


_EXPLANATION = """The recipes' settings, with refinement where they have it, and every kind of connection. Gains are
points of accuracy, paired by seed. The last column but one says what connections take away: how many members must run
one after the other before the last can; without connections all could run side by side."""


def draw(cells: Sequence[Cell], path: Path) -> None:
    """Accuracy by number of FLOPs, one panel for each data set."""
    draw_by_flops(cells, DATA_SETS, {kind: (COLOURS[kind], STYLES[kind]) for kind in KINDS}, path, height=4.0)


def _rows(data_set: str, cells: Sequence[Cell]) -> list[list[object]]:
    series = Series([cell for cell in cells if cell.recipe == data_set])
    return [[data_set, *_row(series, kind)] for kind in KINDS if series.of(kind)]


def _row(series: Series, kind: str) -> list[object]:
    ours, none = _by_seed(series, kind), _by_seed(series, NONE)
    pairs = [(ours[seed], none[seed]) for seed in sorted(ours.keys() & none.keys())]
    gains = [own[-1]["accuracy"] - base[-1]["accuracy"] for own, base in pairs]
    mean = [statistics.fmean(a["accuracy"] - b["accuracy"] for a, b in zip(*pair, strict=False)) for pair in pairs]
    flops = [own[-1]["flops"] / base[-1]["flops"] for own, base in pairs]
    timed = [(own[-1]["ms"], base[-1]["ms"]) for own, base in pairs if "ms" in own[-1] and "ms" in base[-1]]
    times = [spread([own[str(batch)] / base[str(batch)] for own, base in timed]) for batch in BATCHES]
    own = kind == NONE
    return [
        kind,
        percent([points[-1]["accuracy"] for points in ours.values()]),
        "—" if own else percent(gains),
        "—" if own else percent(mean),
        "1" if own else spread(flops),
        *(["1"] * len(BATCHES) if own else times),
        max(_chain(cell.values["sources"]) for cell in series.of(kind)),
        len(ours),
    ]


def _by_seed(series: Series, kind: str) -> dict[int, Points]:
    """The prefixes of each seed: a run may have ended early, one without any member is left out."""
    return {cell.seed: cell.values["points"] for cell in series.of(kind) if cell.values["points"]}


def _chain(sources: Sequence[Sequence[int]]) -> int:
    """Members on the longest path of the graph of who reads whom; 0 where there are none."""
    lengths = list[int]()
    for read in sources:
        lengths.append(1 + max((lengths[source] for source in read), default=0))
    return max(lengths, default=0)


EXPERIMENT = Experiment(
    name="ablate-connections",
    summary="none, residual, dense, LSTM and GRU connections: accuracy gained, FLOPs and time paid",
    arms=tuple(
        Arm(
            name=kind,
            recipe=data_set,
            run=arms.run_bdistil,
            settings=unconnected if kind == NONE else connected(kind),
        )
        for data_set in DATA_SETS
        for kind in KINDS
    ),
    seeds=3,
    report=report,
    draw=draw,
)
