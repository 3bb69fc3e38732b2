"""What the pictures share: a figure without a window, plain axes, and a file whose bytes are the same twice."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BLUE, ORANGE, GREY, GREEN, RED, PURPLE = "#1f5fa8", "#d9722b", "#6b7280", "#2e8b57", "#b03a48", "#7b5ea7"


def panels(
    count: int = 1, width: float = 7.2, height: float = 4.5, columns: int | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` axes, `width` by `height` inches in all; side by side, or `columns` in a row."""
    columns = min(columns or count, count)
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(math.ceil(count / columns), columns, squeeze=False).flat)
    for spare in axes[count:]:
        spare.set_axis_off()
    return figure, axes[:count]


def plain(axes: Axes, *, title: str, x: str, y: str) -> None:
    """Labels, a light grid, and no box around."""
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: Path) -> None:
    """Write the PNG; the version of matplotlib is left out, because it would change the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def legend(figure: Figure, axes: Axes, columns: int) -> None:
    """One for all panels, below them, where no curve is."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
