"""docs/RESULTS.md, made of the results on disk and of nothing else, so that no table can differ from its data."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from training.errors import BadConfig
from training.recipes import RECIPES
from training.reproduce.experiment import Arm, Cell, Experiment
from training.reproduce.store import Store

RESULTS, DOCUMENT = "results", "RESULTS.md"
INTRODUCTION = """# Results

Every table and picture here is written by `train-ensemble reproduce --render` from the files in [results](results),
which `train-ensemble reproduce NAME` measures: `train-ensemble reproduce --list` explains each name in a line. Numbers
are mean ± standard deviation over seeds, on test parts that no choice was made on. Times are the fastest of many runs
through onnxruntime on one thread of the CPU, on seed 0. Costs are FLOPs, one multiply-add as two. Every arm gets as
many passes over the training set for each member as every other, unless its row says otherwise; refinement keeps the
pass with the lowest validation loss, everything else the last one.
"""


def render(docs: Path, experiments: Sequence[Experiment]) -> Path:
    """Write the document; experiments without results are left out."""
    sections = [INTRODUCTION]
    for experiment in experiments:
        cells = Store(result_path(docs, experiment)).cells
        if cells:
            sections.append(_section(docs, experiment, cells))
    path = docs / DOCUMENT
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".partial")
    aside.write_text("\n".join(sections))
    aside.replace(path)
    return path


def result_path(docs: Path, experiment: Experiment) -> Path:
    """Where the results of an experiment are."""
    return docs / RESULTS / f"{experiment.name}.json"


def picture_path(docs: Path, experiment: Experiment) -> Path:
    """Where its picture is."""
    return docs / RESULTS / f"{experiment.name}.png"


def _section(docs: Path, experiment: Experiment, cells: Sequence[Cell]) -> str:
    picture = picture_path(docs, experiment)
    drawn = f"![{experiment.summary}]({RESULTS}/{picture.name})\n\n" if picture.is_file() else ""
    heading = f"## {experiment.name}\n\n{experiment.summary[0].upper()}{experiment.summary[1:]}.\n\n"
    notes = f"{_aged(experiment, cells)}{_mixed(cells)}"
    return f"{heading}{drawn}{experiment.report(cells)}\n\n{_provenance(cells)}{notes}\n"


def _provenance(cells: Sequence[Cell]) -> str:
    commands = " and ".join(f"`{command}`" for command in _distinct(cell.command for cell in cells))
    commits = ", ".join(_distinct((cell.commit or "no commit")[:12] for cell in cells))
    hardware = "; ".join(_distinct(cell.hardware for cell in cells))
    minutes = sum(cell.seconds for cell in cells) / 60
    return f"{commands}; {len(cells)} runs, {minutes:.0f} minutes on {hardware}; commit {commits}."


def _aged(experiment: Experiment, cells: Sequence[Cell]) -> str:
    """Which recipes are no longer what was measured, but for what the command changed; nothing where all are."""
    arms = {(arm.recipe, arm.name): arm for arm in experiment.arms}
    aged = _distinct(
        cell.recipe
        for cell in cells
        if (arm := arms.get((cell.recipe, cell.arm))) and _settings_now(arm, cell) != cell.config
    )
    return f" Measured under other settings than the recipe has now: {', '.join(aged)}." if aged else ""


def _settings_now(arm: Arm, cell: Cell) -> dict[str, object] | None:
    """What the command of a cell gives its arm today; None where it sets what there no longer is."""
    try:
        return arm.settings(RECIPES[cell.recipe].config.override([*_set(cell), f"seed={cell.seed}"])).record()
    except BadConfig:
        return None


def _mixed(cells: Sequence[Cell]) -> str:
    """Which recipes have seeds of one arm, or arms, of different settings; nothing where none has.

    A command for fewer seeds, or one that was interrupted, leaves the others as an earlier one made them.
    """
    known: dict[tuple[str, ...], set[str]] = {}
    for cell in cells:
        name = str(cell.config.get("name", cell.recipe))  # results of other data are no part of a mean
        settings = json.dumps({**cell.config, "seed": None}, sort_keys=True)
        known.setdefault((cell.recipe, name, cell.arm), set()).add(settings)
        known.setdefault((cell.recipe, name), set()).add(shlex.join(sorted(_set(cell))))
    mixed = _distinct(recipe for (recipe, *_), found in known.items() if len(found) > 1)
    return f" Not all of these runs are of the same settings: {', '.join(mixed)}." if mixed else ""


def _set(cell: Cell) -> list[str]:
    """What `--set` said in the command of a cell, as NAME=VALUE."""
    words = shlex.split(cell.command)
    return [value for word, value in pairwise(words) if word == "--set"]


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
