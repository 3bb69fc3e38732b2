"""Figure 2: accuracy against cost, for B-DISTIL, its two baselines and the arms in between."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from training import picture
from training.reproduce import arms
from training.reproduce.experiment import Arm, Cell, Experiment
from training.reproduce.table import markdown, percent, spread
from training.reproduce.timing import BATCHES

DATA_SETS = ("digits", "ellipsoid", "cube", "dsa19", "google13", "cifar10", "cifar100")
TEACHER, SINGLE, INDEPENDENT, REFINED = "teacher", "NO-RESCHED", "RESCHED", "B-DISTIL refined"
GREEDY, REWEIGHTED, PAPER = "B-DISTIL rounds only", "rounds without connections", "B-DISTIL paper"
STYLES = {
    SINGLE: (picture.GREY, "s--"),
    INDEPENDENT: (picture.ORANGE, "^:"),
    REWEIGHTED: (picture.GREEN, "v:"),
    PAPER: (picture.RED, "x-"),
    GREEDY: (picture.PURPLE, "d-"),
    REFINED: (picture.BLUE, "o-"),
}
PAPERS_NUMBERS = (
    "The paper gives Figure 2 as curves without numbers; it says that B-DISTIL stays competitive with NO-RESCHED and "
    "outperforms RESCHED."
)
TARGET = 0.005
"""How far below its single model a prefix may be, as a share of the test samples."""


def experiment(data_set: str) -> Experiment:
    """Figure 2 on the data set of one recipe."""
    runs = (
        Arm(name=TEACHER, recipe=data_set, run=arms.run_teacher),
        Arm(name=REFINED, recipe=data_set, run=arms.run_bdistil),
        Arm(name=SINGLE, recipe=data_set, run=arms.run_no_resched),
        Arm(name=INDEPENDENT, recipe=data_set, run=arms.run_resched),
        Arm(name=GREEDY, recipe=data_set, run=arms.run_bdistil, settings=arms.unrefined),
        Arm(name=REWEIGHTED, recipe=data_set, run=arms.run_bdistil, settings=arms.unconnected),
        Arm(name=PAPER, recipe=data_set, run=arms.run_bdistil, settings=arms.paper),
    )
    return Experiment(
        name=f"figure2-{data_set}",
        summary=f"accuracy against cost on {data_set}: B-DISTIL, its baselines, the arms in between",
        arms=runs,
        seeds=3,
        report=report,
        draw=draw,
    )


def report(cells: Sequence[Cell]) -> str:
    """Every prefix of every arm; then how far the refined prefixes are from the two baselines."""
    header = ["arm", "k", "FLOPs fraction", "accuracy %", *(f"ms, batch {batch}" for batch in BATCHES), "seeds"]
    parts = [PAPERS_NUMBERS, markdown(header, _rows(cells)), markdown(_GAPS, _gaps(cells)), *_stops(cells)]
    return "\n\n".join(part for part in parts if part)


def draw(cells: Sequence[Cell], path: Path) -> None:
    """Accuracy against FLOPs, and against measured time of one sample."""
    figure, (by_flops, by_time) = picture.panels(2, width=12.0, height=4.8)
    for arm, (colour, style) in STYLES.items():
        _curve(by_flops, cells, arm, colour, style, timed=False)
        _curve(by_time, cells, arm, colour, style, timed=True)
    accuracy = 100 * statistics.fmean(_of(cells, TEACHER, 0, "accuracy"))
    for axes in (by_flops, by_time):
        axes.axhline(accuracy, color="black", lw=1, ls=(0, (6, 3)), label=f"teacher ({accuracy:.1f} %)")
        axes.set_xlim(left=0)
        axes.margins(y=0.08)
    name, seeds = cells[0].recipe, len({cell.seed for cell in cells})
    of = f"mean and spread of {seeds} seeds" if seeds > 1 else "one seed"
    picture.plain(by_flops, title=f"{name}: {of}", x="cost, as a fraction of the teacher's FLOPs", y="accuracy (%)")
    picture.plain(by_time, title="by measured time", x="ms for one sample, onnxruntime, one CPU thread", y="")
    by_flops.legend(loc="lower right", frameon=False, fontsize=8)
    picture.save(figure, path)


def _curve(axes: Axes, cells: Sequence[Cell], arm: str, colour: str, style: str, *, timed: bool) -> None:
    points = list[tuple[float, float, float]]()
    for k in range(_longest(cells, arm)):
        accuracies = [100 * value for value in _of(cells, arm, k, "accuracy")]
        costs = _times(cells, arm, k, BATCHES[0]) if timed else _fractions(cells, arm, k)
        if costs:
            deviation = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
            points.append((statistics.fmean(costs), statistics.fmean(accuracies), deviation))
    if points:
        x, y, deviations = zip(*points, strict=True)
        axes.errorbar(x, y, deviations, fmt=style, color=colour, label=arm, lw=1.6, ms=5, capsize=2, elinewidth=0.8)


def _rows(cells: Sequence[Cell]) -> list[list[object]]:
    rows = list[list[object]]()
    for arm in (TEACHER, *STYLES):
        for k in range(_longest(cells, arm)):
            accuracies = _of(cells, arm, k, "accuracy")
            times = [spread(_times(cells, arm, k, batch), 3) for batch in BATCHES]
            fraction = spread([statistics.fmean(_fractions(cells, arm, k))], 3) if _fractions(cells, arm, k) else "—"
            rows.append([arm, "" if arm == TEACHER else k + 1, fraction, percent(accuracies), *times, len(accuracies)])
    return rows


_GAPS = ["B-DISTIL refined, k", f"minus {SINGLE}", f"minus {INDEPENDENT}", f"within {100 * TARGET:.1f} of its single"]


def _gaps(cells: Sequence[Cell]) -> list[list[object]]:
    """Paired by seed, in points of accuracy."""
    rows = list[list[object]]()
    for k in range(_longest(cells, REFINED)):
        single, independent = (_paired(cells, other, k) for other in (SINGLE, INDEPENDENT))
        met = ("yes" if statistics.fmean(single) >= -TARGET else "no") if single else "—"
        rows.append([k + 1, percent(single), percent(independent), met])
    return rows


def _stops(cells: Sequence[Cell]) -> list[str]:
    return [
        f"{cell.arm}, seed {cell.seed}: {cell.values['stopped']}."
        for cell in cells
        if cell.arm == PAPER and cell.values["stopped"]
    ]


def _paired(cells: Sequence[Cell], other: str, k: int) -> list[float]:
    ours, theirs = (
        {
            cell.seed: cell.values["points"][k]["accuracy"]
            for cell in cells
            if cell.arm == arm and k < len(cell.values["points"])
        }
        for arm in (REFINED, other)
    )
    return [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]


def _of(cells: Sequence[Cell], arm: str, k: int, key: str) -> list[float]:
    """`key` of the k-th point of an arm, on every seed that has it."""
    points = [cell.values["points"][k] for cell in cells if cell.arm == arm and k < len(cell.values["points"])]
    return [point[key] for point in points if point.get(key) is not None]


def _fractions(cells: Sequence[Cell], arm: str, k: int) -> list[float]:
    """Of the teacher's FLOPs; none where nobody knows them."""
    teacher = _of(cells, TEACHER, 0, "flops")
    return [value / teacher[0] for value in _of(cells, arm, k, "flops")] if teacher else []


def _times(cells: Sequence[Cell], arm: str, k: int, batch: int) -> list[float]:
    found: list[dict[str, float]] = [
        cell.values["points"][k]["ms"]
        for cell in cells
        if cell.arm == arm and k < len(cell.values["points"]) and "ms" in cell.values["points"][k]
    ]
    return [ms[str(batch)] for ms in found]


def _longest(cells: Sequence[Cell], arm: str) -> int:
    return max((len(cell.values["points"]) for cell in cells if cell.arm == arm), default=0)


EXPERIMENTS = tuple(experiment(data_set) for data_set in DATA_SETS)
