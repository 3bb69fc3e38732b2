"""Results on disk: one JSON file an experiment, replaced atomically after every arm and seed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.errors import BadConfig
from training.lock import alone
from training.reproduce.experiment import Cell


class Store:
    """The cells of one experiment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cells = self._read()

    def has(
        self,
        recipe: str,
        arm: str,
        config: Mapping[str, Any],
        data_sha256: str | None = None,
        teacher_sha256: str | None = None,
    ) -> bool:
        """Whether the arm was finished under these very settings, of which the seed is one, on the same files.

        A hash that is not known, now or then, counts as the same.
        """
        return any(
            (cell.recipe, cell.arm) == (recipe, arm)
            and cell.config == config
            and data_sha256 in {None, cell.data_sha256 or data_sha256}
            and teacher_sha256 in {None, cell.teacher_sha256 or teacher_sha256}
            for cell in self.cells
        )

    def add(self, cell: Cell) -> None:
        """Keep a cell, in place of an older one of the same arm, seed and name, beside what others kept meanwhile."""
        with alone(self.path.parent):
            self.cells = [kept for kept in self._read() if _key(kept) != _key(cell)] + [cell]
            self._write()

    def keep(self, arms: list[tuple[str, str]]) -> None:
        """Drop the cells of arms that the experiment no longer has, and put the others in its order."""
        if not self.path.is_file():
            return
        order = {arm: position for position, arm in enumerate(arms)}
        with alone(self.path.parent):
            kept = [cell for cell in self._read() if (cell.recipe, cell.arm) in order]
            self.cells = sorted(kept, key=lambda cell: (order[cell.recipe, cell.arm], *_key(cell)))
            if self.cells:
                self._write()

    def _read(self) -> list[Cell]:
        return _read(self.path) if self.path.is_file() else []

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_suffix(".partial")
        content = {"cells": [dataclasses.asdict(cell) for cell in self.cells]}
        aside.write_text(json.dumps(content, indent=1) + "\n")
        aside.replace(self.path)


def _key(cell: Cell) -> tuple[str, str, str, int]:
    """Results of other data, which another name says, stand side by side."""
    return cell.recipe, cell.arm, str(cell.config.get("name", cell.recipe)), cell.seed


def _read(path: Path) -> list[Cell]:
    try:
        return [Cell(**cell) for cell in json.loads(path.read_text())["cells"]]
    except (ValueError, KeyError, TypeError) as error:
        raise BadConfig(f"{path} does not hold results of this program ({error}): move it away.") from error
