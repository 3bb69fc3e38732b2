"""What recipes share whose teacher may be a published CIFAR ResNet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from training.config import RecipeConfig
from training.data import Data
from training.errors import BadTeacher
from training.networks.resnet import CIFAR_SHAPE, load_published

NO_FILE = Path()
"""The value of `teacher_checkpoint` that names none."""


@dataclass(frozen=True, kw_only=True)
class PublishedConfig(RecipeConfig):
    """Also a published teacher."""

    teacher_checkpoint: Path = NO_FILE
    """Weights of a published CIFAR ResNet (.npz or PyTorch state dict); without it a teacher is trained here."""
    teacher_depth: int = 56
    """Depth 6n + 2 of the published one; that of the one trained here follows from `teacher_blocks`, its n."""

    @property
    def reads_files(self) -> bool:
        """Where a published teacher is named."""
        return self.teacher_checkpoint != NO_FILE or super().reads_files

    def published(self, data: Data) -> nn.Module | None:
        """The published teacher for `data`; None when no checkpoint is named.

        Raises:
            BadTeacher: it cannot be read, or is not for such samples.
        """
        if self.teacher_checkpoint == NO_FILE:
            return None
        found = (data.train.x.dtype.name, data.input_shape)
        if found != ("uint8", CIFAR_SHAPE):
            raise BadTeacher(
                f"A published CIFAR ResNet takes uint8 images of shape {list(CIFAR_SHAPE)}, "
                f"but the samples are {found[0]} of shape {list(found[1])}."
            )
        return load_published(self.teacher_checkpoint, self.teacher_depth, len(data.classes))
