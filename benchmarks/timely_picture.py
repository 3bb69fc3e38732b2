"""The picture of timely accuracy against load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.recorded import Recording

STYLES = (
    ("#1f5fa8", "o-", 2.4),
    ("#7ba3cf", "v--", 1.4),
    ("#2e8b57", "^--", 1.4),
    ("#d9722b", "s:", 1.4),
    ("#8e5ea2", "P:", 1.4),
    ("#6b7280", "D:", 1.4),
)


class Result(Protocol):
    """What is drawn of a cell."""

    @property
    def sent(self) -> int:
        """Requests."""

    @property
    def timely_right(self) -> int:
        """Right answers in time."""


def draw(
    path: Path,
    cells: Mapping[tuple[str, str, float], Result],
    names: list[str],
    recording: Recording,
    machine: str,
) -> None:
    """One panel for each choice of deadlines, one curve for each way to serve."""
    choices = list(dict.fromkeys(key[0] for key in cells))
    figure = Figure(figsize=(3.4 * len(choices) + 0.6, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(choices), sharey=True, squeeze=False)[0]
    for axes, choice in zip(panels, choices, strict=True):
        for name, (colour, style, width) in zip(names, STYLES, strict=True):
            loads = sorted(key[2] for key in cells if key[:2] == (choice, name))
            found = [cells[choice, name, load] for load in loads]
            values = [100 * cell.timely_right / max(1, cell.sent) for cell in found]
            axes.plot(loads, values, style, color=colour, lw=width, ms=5, label=name)
        teacher = 100 * recording.accuracy()[-1]
        axes.axhline(teacher, color="black", lw=0.8, ls=(0, (6, 3)))
        axes.set_xscale("log")
        axes.set_xticks(loads, [f"{load:g}" for load in loads])
        axes.minorticks_off()
        axes.set_title(f"deadline {choice} ms" if choice != "mixed" else "deadlines mixed", fontsize=10, loc="left")
        axes.set_xlabel("load, × capacity with all stages")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("right and in time (% of requests sent)")
    panels[0].set_ylim(0, 100)
    panels[0].legend(loc="lower left", frameon=False, fontsize=8)
    figure.suptitle(machine, fontsize=8, x=0.01, ha="left", color="#6b7280")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
