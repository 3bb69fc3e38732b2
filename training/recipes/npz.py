"""Your own data from one .npz archive, with your teacher's logits or a teacher trained here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from training.config import RecipeConfig
from training.data import npz
from training.errors import BadConfig
from training.networks import Convolutional, DenseNet, FullyConnected, ModelClass, Recurrent, ResNet
from training.recipes.published import PublishedConfig
from training.recipes.recipe import Prepared, Recipe


@dataclass(frozen=True, kw_only=True)
class NpzConfig(PublishedConfig):
    """Also where the archive is."""

    data: Path = Path("data.npz")
    """Archive with train_x, train_y, test_x, test_y, perhaps val_x, val_y, and perhaps logits for each of the parts."""
    family: Literal["auto", "fully_connected", "convolutional", "resnet", "densenet", "lstm", "gru"] = "auto"
    """Of teacher and members; `auto`: convolutional for (N, H, W) and (N, C, H, W), fully connected for the rest."""
    frame_steps: int = 1
    """Steps that networks of the families lstm and gru read at once; they must divide the sequence."""
    task: Literal["auto", "classification", "regression"] = "auto"
    """`auto`: float labels are values of a regression, integers are classes."""

    @property
    def reads_files(self) -> bool:
        """Always."""
        return True


# As for the digits: the paper's own settings seldom find a second weak learner, and then stop.
CONFIG = NpzConfig(
    name="npz",
    teacher_widths=(32, 64),
    member_widths=(8, 16),
    connection="residual",
    first_expansion=1,
    eta_rule="scaled",
    gamma=0.0125,
    bound_factor=3.0,
    task_loss="running_average",
    on_failure="best",
    epochs=6,
    refine_epochs=24,
)


def prepare(config: RecipeConfig) -> Prepared:
    """Networks of the chosen family; for lstm and gru the samples are sequences (N, T, F)."""
    if not isinstance(config, NpzConfig):
        raise TypeError("the npz recipe needs an NpzConfig")
    data, logits = npz.load(config.data, config.seed, sequences=config.family in {"lstm", "gru"}, task=config.task)
    family = config.family
    if family == "auto":
        family = "convolutional" if len(data.input_shape) in {2, 3} else "fully_connected"
    if config.frame_steps > 1 and family not in {"lstm", "gru"}:
        raise BadConfig(f"frame_steps={config.frame_steps} is for the families lstm and gru, not for {family}.")
    published = config.published(data)
    if published is not None and logits is not None:
        raise BadConfig(
            f"{config.data} holds the teacher's logits and teacher_checkpoint names a teacher: give one of them."
        )
    frame = config.frame_steps
    teacher = published or logits or _model_class(family, config.teacher_widths, config.teacher_blocks, frame)
    members = _model_class(family, config.member_widths, config.member_blocks, frame)
    return Prepared(data, teacher, (members,))


def _model_class(family: str, widths: tuple[int, ...], blocks: int, frame: int) -> ModelClass:
    match family:
        case "lstm" | "gru":
            return Recurrent(cell=family, widths=widths, blocks=blocks, frame=frame)
        case "resnet":
            return ResNet(widths=widths, blocks=blocks)
        case "densenet":
            return DenseNet(widths=widths, blocks=blocks)
        case "convolutional":
            return Convolutional(widths=widths, blocks=blocks)
        case _:
            return FullyConnected(widths=widths, blocks=blocks)


RECIPE = Recipe("npz", "your own arrays: --set data=FILE.npz", CONFIG, prepare)
