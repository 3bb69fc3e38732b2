"""What recipes with recurrent networks share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from training.data import Data
from training.networks import Recurrent
from training.recipes.archived import ArchivedConfig
from training.recipes.recipe import Prepared


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig(ArchivedConfig):
    """Also which recurrence."""

    cell: Literal["lstm", "gru"]
    """Of teacher and members."""


def prepare_recurrent(config: RecurrentConfig, data: Data) -> Prepared:
    """Recurrent teacher and members."""
    return Prepared(
        data,
        Recurrent(cell=config.cell, widths=config.teacher_widths, blocks=config.teacher_blocks),
        (Recurrent(cell=config.cell, widths=config.member_widths, blocks=config.member_blocks),),
    )
