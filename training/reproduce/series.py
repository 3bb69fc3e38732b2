"""The cells of one recipe as series: the k-th answer of an arm, over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from training import picture
from training.reproduce.experiment import Cell
from training.reproduce.timing import BATCHES

Point = tuple[float, float, float]
"""Cost, accuracy in % and its deviation over seeds."""


@dataclass(frozen=True, slots=True)
class Series:
    """Cells whose values hold `points`, as :mod:`training.reproduce.prefixes` makes them."""

    cells: Sequence[Cell]

    def of(self, arm: str) -> list[Cell]:
        """One arm, by seed."""
        return sorted((cell for cell in self.cells if cell.arm == arm), key=lambda cell: cell.seed)

    def longest(self, arm: str) -> int:
        """Answers of an arm, on the seed where it has most."""
        return max((len(cell.values["points"]) for cell in self.of(arm)), default=0)

    def get(self, arm: str, k: int, key: str) -> dict[int, Any]:
        """`key` of the k-th answer (from 0), on every seed that has it."""
        points = {cell.seed: cell.values["points"][k] for cell in self.of(arm) if k < len(cell.values["points"])}
        return {seed: point[key] for seed, point in points.items() if point.get(key) is not None}

    def accuracies(self, arm: str, k: int) -> list[float]:
        """On the test part."""
        return list(self.get(arm, k, "accuracy").values())

    def flops(self, arm: str, k: int) -> list[float]:
        """Per sample."""
        return list(self.get(arm, k, "flops").values())

    def ms(self, arm: str, k: int, batch: int) -> list[float]:
        """Measured, on the seeds that were timed."""
        return [times[str(batch)] for times in self.get(arm, k, "ms").values()]

    def gains(self, arm: str, k: int, other: str, at: int) -> list[float]:
        """Accuracy of the k-th answer of `arm` minus that of the answer `at` of `other`, paired by seed."""
        ours, theirs = self.get(arm, k, "accuracy"), self.get(other, at, "accuracy")
        return [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]

    def curve(
        self,
        axes: Axes,
        arm: str,
        colour: str,
        style: str,
        *,
        unit: float = 1.0,
        timed: bool = False,
        frontier: bool = False,
    ) -> None:
        """Draw accuracy with its spread against cost: FLOPs over `unit`, or ms of one sample where `timed`.

        Points are joined in the order of their cost; of a `frontier` only those that are better than every cheaper one.
        An arm of one answer is drawn as a ring, which does not vanish behind the first answers of the others.
        """
        points = self._points(arm, unit, timed=timed)
        if not points:
            return
        alone = len(points) == 1
        marker, line = ("o", "") if alone else (style[0], style[1:])
        shape: dict[str, Any] = {"ms": 12, "mfc": "none", "mew": 1.8, "zorder": 4} if alone else {"ms": 5}
        x, y, deviations = zip(*points, strict=True)
        axes.errorbar(x, y, deviations, fmt=marker, color=colour, capsize=2, elinewidth=0.8, **shape)
        joined_x, joined_y, _ = zip(*(_best_so_far(points) if frontier else points), strict=True)
        axes.plot(joined_x, joined_y, line, color=colour, lw=1.6)
        axes.plot([], [], marker + line, color=colour, lw=1.6, label=arm, **shape)

    def _points(self, arm: str, unit: float, *, timed: bool) -> list[Point]:
        """The arm's answers, cheapest first; in time without those that were not timed."""
        points = list[Point]()
        for k in range(self.longest(arm)):
            accuracies = [100 * value for value in self.accuracies(arm, k)]
            costs = self.ms(arm, k, BATCHES[0]) if timed else [value / unit for value in self.flops(arm, k)]
            if costs:
                deviation = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
                points.append((statistics.fmean(costs), statistics.fmean(accuracies), deviation))
        return sorted(points)


def draw_by_flops(
    cells: Sequence[Cell], recipes: Sequence[str], arms: Mapping[str, tuple[str, str]], path: Path, height: float
) -> None:
    """Accuracy by number of FLOPs, one panel for each recipe.

    Args:
        cells: of all recipes.
        recipes: in this order.
        arms: the curves, each with its colour and style.
        path: of the PNG.
        height: of the picture, in inches.
    """
    figure, panels = picture.panels(len(recipes), width=11.0, height=height)
    for axes, recipe in zip(panels, recipes, strict=True):
        series = Series([cell for cell in cells if cell.recipe == recipe])
        for arm, (colour, style) in arms.items():
            series.curve(axes, arm, colour, style, unit=1e3)
        picture.plain(axes, title=recipe, x="thousand FLOPs", y="accuracy (%)" if axes is panels[0] else "")
        axes.set_xlim(left=0)
    picture.legend(figure, panels[0], columns=len(arms))
    picture.save(figure, path)


def _best_so_far(points: Sequence[Point]) -> list[Point]:
    """Of points in the order of cost those that are better than every cheaper one."""
    return [point for i, point in enumerate(points) if all(point[1] > cheaper[1] for cheaper in points[:i])]
