"""Figure 2: accuracy against cost, for B-DISTIL, its two baselines and the arms in between."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from training import picture
from training.config import RecipeConfig
from training.recipes import RECIPES
from training.reproduce import arms
from training.reproduce.experiment import Arm, Cell, Experiment
from training.reproduce.series import Series
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
THE_PICTURE = (
    "In the picture a ring is an arm of one answer. By time the line of NO-RESCHED joins the single models that no "
    "faster one beats."
)
TARGET = 0.005
"""How far below its single model a prefix may be, as a share of the test samples."""


def experiment(data_set: str) -> Experiment:
    """Figure 2 on the data set of one recipe; what its settings make the same is one arm."""
    own = own_arm(RECIPES[data_set].config)
    runs = (
        Arm(name=TEACHER, recipe=data_set, run=arms.run_teacher),
        Arm(name=own, recipe=data_set, run=arms.run_bdistil),
        Arm(name=SINGLE, recipe=data_set, run=arms.run_no_resched),
        Arm(name=INDEPENDENT, recipe=data_set, run=arms.run_resched),
        Arm(name=GREEDY, recipe=data_set, run=arms.run_bdistil, settings=arms.unrefined),
        Arm(name=REWEIGHTED, recipe=data_set, run=arms.run_bdistil, settings=arms.unconnected),
        Arm(name=PAPER, recipe=data_set, run=arms.run_bdistil, settings=arms.paper),
    )
    without = {own}
    if RECIPES[data_set].config.connection == "none":
        without.add(GREEDY)  # its rounds are those without connections
    return Experiment(
        name=f"figure2-{data_set}",
        summary=f"accuracy against cost on {data_set}: B-DISTIL, its baselines, the arms in between",
        arms=(*runs[:2], *(arm for arm in runs[2:] if arm.name not in without)),
        seeds=3,
        report=report,
        draw=draw,
    )


def own_arm(config: RecipeConfig) -> str:
    """The arm of the recipe's own settings."""
    if config.refine_epochs:
        return REFINED
    return REWEIGHTED if config.connection == "none" else GREEDY


def report(cells: Sequence[Cell]) -> str:
    """Every prefix of every arm; then how far the prefixes of the recipe's own are from the two baselines."""
    series, own = Series(cells), own_arm(RECIPES[cells[0].recipe].config)
    header = ["arm", "k", "FLOPs fraction", "accuracy %", *(f"ms, batch {batch}" for batch in BATCHES), "seeds"]
    gaps = [f"{own}, k", f"minus {SINGLE}", f"minus {INDEPENDENT}", f"within {100 * TARGET} of its single"]
    stops = [
        f"{cell.arm}, seed {cell.seed}, ended with {len(cell.values['points'])} members: {cell.values['stopped']}."
        for cell in series.of(PAPER)
        if cell.values["stopped"]
    ]
    tables = [markdown(header, _rows(series)), markdown(gaps, _gaps(series, own))]
    return "\n\n".join(
        [
            PAPERS_NUMBERS,
            f"{THE_PICTURE} The recipe's own settings are those of the arm {own!r}.",
            tables[0],
            _GAPS_EXPLAINED,
            tables[1],
            *stops,
        ]
    )


_GAPS_EXPLAINED = "Points of accuracy, paired by seed:"


def draw(cells: Sequence[Cell], path: Path) -> None:
    """Accuracy against FLOPs, and against measured time of one sample.

    Single models of nearly equal time are in no order, so there a line joins the best that can be had by each time.
    """
    series = Series(cells)
    figure, (by_flops, by_time) = picture.panels(2, width=12.0, height=4.8)
    unit = _unit(series)
    for arm, (colour, style) in STYLES.items():
        series.curve(by_flops, arm, colour, style, unit=unit or 1.0)
        series.curve(by_time, arm, colour, style, timed=True, frontier=arm == SINGLE)
    accuracy = 100 * statistics.fmean(series.accuracies(TEACHER, 0))
    for axes in (by_flops, by_time):
        axes.axhline(accuracy, color="black", lw=1, ls=(0, (6, 3)), label=f"teacher ({accuracy:.1f} %)")
        axes.set_xlim(left=0)
        axes.margins(y=0.08)
    name, seeds = cells[0].recipe, len({cell.seed for cell in cells})
    of = f"mean and spread of {seeds} seeds" if seeds > 1 else "one seed"
    cost = "cost, as a fraction of the teacher's FLOPs" if unit else "cost in FLOPs"
    picture.plain(by_flops, title=f"{name}: {of}", x=cost, y="accuracy (%)")
    picture.plain(by_time, title="by measured time", x="ms for one sample, onnxruntime, one CPU thread", y="")
    picture.legend(figure, by_flops, columns=4)
    picture.save(figure, path)


def _rows(series: Series) -> list[list[object]]:
    rows, unit = list[list[object]](), _unit(series)
    for arm in (TEACHER, *STYLES):
        for k in range(series.longest(arm)):
            accuracies, flops = series.accuracies(arm, k), series.flops(arm, k)
            fraction = f"{statistics.fmean(flops) / unit:.3f}" if flops and unit else "—"
            times = [spread(series.ms(arm, k, batch), 3) for batch in BATCHES]
            rows.append([arm, "" if arm == TEACHER else k + 1, fraction, percent(accuracies), *times, len(accuracies)])
    return rows


def _gaps(series: Series, own: str) -> list[list[object]]:
    rows = list[list[object]]()
    for k in range(series.longest(own)):
        single, independent = (series.gains(own, k, other, k) for other in (SINGLE, INDEPENDENT))
        met = ("yes" if statistics.fmean(single) >= -TARGET else "no") if single else "—"
        rows.append([k + 1, percent(single), percent(independent), met])
    return rows


def _unit(series: Series) -> float | None:
    """FLOPs of the teacher, where they are known."""
    flops = series.flops(TEACHER, 0)
    return flops[0] if flops else None


EXPERIMENTS = tuple(experiment(data_set) for data_set in DATA_SETS)
