"""Your own data from one .npz archive, with your teacher's logits or a teacher trained here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.config import RecipeConfig
from training.data import npz
from training.networks import Convolutional, FullyConnected, ModelClass
from training.recipes.recipe import Prepared, Recipe


@dataclass(frozen=True, kw_only=True)
class NpzConfig(RecipeConfig):
    """Also where the archive is."""

    data: Path = Path("data.npz")
    """Archive with train_x, train_y, test_x, test_y, and perhaps train_logits, test_logits."""


CONFIG = NpzConfig(name="npz", teacher_widths=(32, 64), member_widths=(8, 16))


def prepare(config: RecipeConfig) -> Prepared:
    """Convolutional networks for images (N, H, W) or (N, C, H, W), fully connected ones for everything else."""
    if not isinstance(config, NpzConfig):
        raise TypeError("the npz recipe needs an NpzConfig")
    data, logits = npz.load(config.data, config.seed)
    family = Convolutional if len(data.input_shape) in {2, 3} else FullyConnected
    teacher: ModelClass = family(widths=config.teacher_widths, blocks=config.teacher_blocks)
    members: ModelClass = family(widths=config.member_widths, blocks=config.member_blocks)
    return Prepared(data, teacher if logits is None else logits, (members,))


RECIPE = Recipe("npz", "your own arrays: --set data=FILE.npz", CONFIG, prepare)
