"""What an experiment is: arms, each run on some seeds, and how their results are told and drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.config import RecipeConfig
from training.reproduce.bench import Bench

Values = dict[str, Any]
"""What an arm measured: JSON, whose keys the experiment's own report knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The result of one arm on one seed, with everything needed to run it again."""

    arm: str
    recipe: str
    seed: int
    values: Values
    config: dict[str, Any]
    """The settings, as JSON; another value of any of them makes the cell stale."""
    data_sha256: str | None
    """None when no data was read."""
    teacher_sha256: str | None = None
    """Of a teacher that the recipe brought."""
    commit: str | None
    hardware: str
    packages: dict[str, str]
    created: str
    """When it was finished, ISO 8601."""
    seconds: float
    """How long that took, data and teacher included where this arm was the first to ask for them."""
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One curve or row: settings derived from a recipe's, and what is done with them."""

    name: str
    recipe: str
    run: Callable[[Bench, RecipeConfig], Values]
    settings: Callable[[RecipeConfig], RecipeConfig] = field(default=lambda config: config)
    reads_data: bool = True
    """Whether what it measures depends on data or teacher; without them it needs no archive."""
    on_request: bool = False
    """Run only where ``--recipe`` names its recipe, because it needs data that not everybody has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A name for ``train-ensemble reproduce``, a line for its ``--list``, and the arms."""

    name: str
    summary: str
    arms: tuple[Arm, ...]
    seeds: int
    """How many, from 0, unless the command says otherwise."""
    report: Callable[[Sequence[Cell]], str]
    """The section of RESULTS.md, without heading and provenance."""
    draw: Callable[[Sequence[Cell], Path], None] | None = None
    """The picture, if there is one."""
