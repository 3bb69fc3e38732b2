"""Numbers over seeds, and tables of them, as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from training.reproduce.experiment import Cell


def spread(values: Sequence[float], digits: int = 2) -> str:
    """``mean ± standard deviation`` over seeds; the mean alone of one seed, a dash of none."""
    if not values:
        return "—"
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def percent(values: Sequence[float], digits: int = 2) -> str:
    """Shares as :func:`spread` of percentages."""
    return spread([100 * value for value in values], digits)


def arm_of(cell: Cell, cells: Sequence[Cell]) -> str:
    """What a row of one cell is called: its arm, and its seed where `cells` are of several."""
    return cell.arm if len({one.seed for one in cells}) == 1 else f"{cell.arm}, seed {cell.seed}"


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The first column to the left, the others to the right."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = ["| " + " | ".join(_fit(row, widths)) + " |" for row in cells]
    rules = ["-" * (width + 2) if not column else "-" * (width + 1) + ":" for column, width in enumerate(widths)]
    return "\n".join([lines[0], "|" + "|".join(rules) + "|", *lines[1:]])


def _fit(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        cell.rjust(width) if column else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
