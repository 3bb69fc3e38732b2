"""The tables of timely accuracy, and how this server stands beside the static choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.table import render


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
    stolen: float = 0.0
    """Share of the processors' time that the machine's host took."""


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
        stolen=max(part.stolen for part in parts),
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
                    *(f"{_reached(cell):.3f}" for cell in row),
                    f"{ours.members:.2f}",
                    f"{100 * ours.refused / max(1, ours.sent):.1f} %",
                    f"{100 * ours.timely / max(1, ours.answered):.2f} %",
                    f"{max(cell.client_late_ms for cell in row):.1f}",
                    f"{100 * max(cell.stolen for cell in row):.1f} %",
                )
            )
        header = ("load", *names, "members", "refused", "answers in time", "client late p99 ms", "stolen")
        parts.append(f"Deadline {deadlines} ms:\n\n{render(header, rows)}")
    return "\n\n".join(parts)


def verdict(cells: dict[tuple[str, str, float], Cell], ours: str, static: Sequence[str]) -> str:
    """How `ours` stands beside the best of the static choices, cell by cell."""
    margins = []
    for (deadlines, name, load), cell in cells.items():
        if name == ours:
            best = max(static, key=lambda other: _reached(cells[deadlines, other, load]))
            margins.append((_reached(cell) - _reached(cells[deadlines, best, load]), deadlines, load, best))
    least, deadlines, load, best = min(margins)
    return (
        f"{ours.capitalize()} is at or above the best of the static choices ({'; '.join(static)}) in "
        f"{sum(margin >= 0 for margin, *_ in margins)} of {len(margins)} cells. It does least well at deadline "
        f"{deadlines} and load {load:g}: {100 * least:+.1f} points to `{best}`."
    )


def _reached(cell: Cell) -> float:
    """Timely accuracy."""
    return cell.timely_right / max(1, cell.sent)
