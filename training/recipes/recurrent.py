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
    """Also which recurrence, and how fine its time is."""

    cell: Literal["lstm", "gru"]
    """Of teacher and members."""
    frame_steps: int = 1
    """Steps of a sequence that they read at once; they must divide it."""


def prepare_recurrent(config: RecurrentConfig, data: Data) -> Prepared:
    """Recurrent teacher and members."""
    cell, frame = config.cell, config.frame_steps
    return Prepared(
        data,
        Recurrent(cell=cell, widths=config.teacher_widths, blocks=config.teacher_blocks, frame=frame),
        (Recurrent(cell=cell, widths=config.member_widths, blocks=config.member_blocks, frame=frame),),
    )
