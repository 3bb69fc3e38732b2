"""What recipes with residual networks share: a published checkpoint or a teacher trained here, small members."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from training.data import Data
from training.networks import ModelClass, ResNet
from training.networks.resnet import load_published
from training.recipes.archived import ArchivedConfig
from training.recipes.recipe import Prepared

TRAINED_HERE = Path()
"""The value of `teacher_checkpoint` that names no file."""


@dataclass(frozen=True, kw_only=True)
class ResidualConfig(ArchivedConfig):
    """Also a published teacher."""

    teacher_checkpoint: Path = TRAINED_HERE
    """Weights of a published CIFAR ResNet (.npz or PyTorch state dict); without it a teacher is trained here."""
    teacher_depth: int = 56
    """Depth 6n + 2 of the published one; that of the one trained here follows from `teacher_blocks`, its n."""


def prepare_residual(config: ResidualConfig, data: Data) -> Prepared:
    """A residual teacher as published, and members whose every block lies behind their connections."""
    teacher: nn.Module | ModelClass
    if config.teacher_checkpoint == TRAINED_HERE:
        teacher = ResNet(widths=config.teacher_widths, blocks=config.teacher_blocks, downsample="block")
    else:
        teacher = load_published(config.teacher_checkpoint, config.teacher_depth, len(data.classes))
    return Prepared(data, teacher, (ResNet(widths=config.member_widths, blocks=config.member_blocks),))
