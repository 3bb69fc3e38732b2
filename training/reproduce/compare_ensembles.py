"""Open question 3: B-DISTIL beside what a user might pick instead, at equal cost and with equal training."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from pathlib import Path

from training import picture
from training.reproduce import arms
from training.reproduce.experiment import Arm, Cell, Experiment
from training.reproduce.series import Series
from training.reproduce.table import markdown, percent, spread
from training.reproduce.timing import BATCHES

DATA_SETS = ("digits", "ellipsoid", "cube")
BDISTIL = "B-DISTIL"
METHODS = {
    BDISTIL: (arms.run_bdistil, picture.BLUE, "o-"),
    "independent": (arms.run_resched, picture.ORANGE, "^:"),
    "snapshot": (arms.run_snapshot, picture.GREEN, "v:"),
    "BatchEnsemble": (arms.run_batch_ensemble, picture.PURPLE, "d:"),
    "multi-exit": (arms.run_multi_exit, picture.RED, "s-"),
}


def report(cells: Sequence[Cell]) -> str:
    """What each method answers within the cost of each of B-DISTIL's prefixes; then its time at full cost."""
    rows = [row for data_set in DATA_SETS for row in _within(data_set, cells)]
    costs = [row for data_set in DATA_SETS for row in _at_the_end(data_set, cells)]
    times = ["data", "method", "answers", "FLOPs over B-DISTIL's", *(f"ms, batch {batch}" for batch in BATCHES)]
    return "\n\n".join([_EXPLANATION, markdown(["data", "k", *METHODS], rows), _AT_THE_END, markdown(times, costs)])


_EXPLANATION = """Accuracy in % of the best-funded answer that each method has within the FLOPs of B-DISTIL's first k
members; a dash where its cheapest answer costs more. All are distilled from the same teacher with the same loss and
optimiser, and each member sees the training set as often. The snapshots are one network that goes on learning, and the
latest comes first: it has seen the training set as often as all members together, so its first answer stands for what
longer training is worth. The multi-exit network is of the teacher's family, with the whole ensemble's FLOPs; its width
and depth are free, so it is no decomposition into small members, but it is what one would build."""
_AT_THE_END = "All members or exits:"


def draw(cells: Sequence[Cell], path: Path) -> None:
    """Accuracy against FLOPs, one panel for each data set."""
    figure, panels = picture.panels(len(DATA_SETS), width=11.0, height=4.6)
    for axes, data_set in zip(panels, DATA_SETS, strict=True):
        series = Series([cell for cell in cells if cell.recipe == data_set])
        for method, (_, colour, style) in METHODS.items():
            series.curve(axes, method, colour, style, unit=1e3)
        picture.plain(axes, title=data_set, x="thousand FLOPs", y="accuracy (%)" if axes is panels[0] else "")
        axes.set_xlim(left=0)
    picture.legend(figure, panels[0], columns=5)
    picture.save(figure, path)


def _within(data_set: str, cells: Sequence[Cell]) -> list[list[object]]:
    series = Series([cell for cell in cells if cell.recipe == data_set])
    rows = list[list[object]]()
    for k in range(series.longest(BDISTIL)):
        budgets = series.get(BDISTIL, k, "flops")
        budget = statistics.fmean(budgets.values())
        rows.append([data_set, k + 1, *(percent(_affordable(series, method, budget, budgets)) for method in METHODS)])
    return rows


def _affordable(series: Series, method: str, budget: float, seeds: Collection[int]) -> list[float]:
    """Accuracies of the costliest answer within the budget, on these seeds: B-DISTIL may have ended early on others."""
    answers = [k for k in range(series.longest(method)) if max(series.flops(method, k)) <= budget * (1 + ROUNDING)]
    found = series.get(method, answers[-1], "accuracy") if answers else {}
    return [accuracy for seed, accuracy in found.items() if seed in seeds]


ROUNDING = 1e-9
"""Equal costs are sums in another order."""


def _at_the_end(data_set: str, cells: Sequence[Cell]) -> list[list[object]]:
    series = Series([cell for cell in cells if cell.recipe == data_set])
    rows = list[list[object]]()
    for method in METHODS:
        last = series.longest(method) - 1
        if last >= 0 and series.of(BDISTIL):
            full = statistics.fmean(series.flops(BDISTIL, series.longest(BDISTIL) - 1))
            share = statistics.fmean(series.flops(method, last)) / full
            times = [spread(series.ms(method, last, batch), 3) for batch in BATCHES]
            rows.append([data_set, method, last + 1, f"{share:.2f}", *times])
    return rows


EXPERIMENT = Experiment(
    name="compare-ensembles",
    summary="B-DISTIL, independent members, snapshots, BatchEnsemble and a multi-exit network at equal cost",
    arms=tuple(
        Arm(name=method, recipe=data_set, run=run) for data_set in DATA_SETS for method, (run, _, _) in METHODS.items()
    ),
    seeds=3,
    report=report,
    draw=draw,
)
