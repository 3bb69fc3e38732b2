"""What recipes with residual networks share: a published checkpoint or a teacher trained here, small members."""

from __future__ import annotations

from dataclasses import dataclass

from training.data import Data
from training.networks import ResNet
from training.recipes.archived import ArchivedConfig
from training.recipes.published import PublishedConfig
from training.recipes.recipe import Prepared


@dataclass(frozen=True, kw_only=True)
class ResidualConfig(PublishedConfig, ArchivedConfig):
    """An archive, and perhaps a published teacher."""


def prepare_residual(config: ResidualConfig, data: Data) -> Prepared:
    """A residual teacher as published, and members whose every block lies behind their connections."""
    own = ResNet(widths=config.teacher_widths, blocks=config.teacher_blocks, downsample="block")
    return Prepared(
        data, config.published(data) or own, (ResNet(widths=config.member_widths, blocks=config.member_blocks),)
    )
