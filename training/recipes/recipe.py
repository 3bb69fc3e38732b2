"""What a recipe is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from training.config import RecipeConfig
from training.data import Data
from training.networks import ModelClass
from training.targets import Logits


@dataclass(frozen=True, slots=True)
class Prepared:
    """A recipe's ingredients, made from its settings."""

    data: Data
    teacher: ModelClass | nn.Module | Logits
    """The class of the teacher, which is trained first; or a teacher; or only its logits."""
    classes: tuple[ModelClass, ...]
    """Where members are searched, in order of cost."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A name for ``train-ensemble``, a line for ``--list``, settings, and how to make the ingredients of them."""

    name: str
    summary: str
    config: RecipeConfig
    prepare: Callable[[RecipeConfig], Prepared]
