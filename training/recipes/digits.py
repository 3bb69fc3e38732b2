"""Handwritten digits: real data, no download, a minute or two on two cores."""

from training.config import RecipeConfig
from training.data import digits
from training.networks import Convolutional
from training.recipes.recipe import Prepared, Recipe

CONFIG = RecipeConfig(
    name="digits",
    teacher_widths=(8, 16),
    teacher_epochs=14,
    member_widths=(2, 4),
    rounds=6,
    connection="residual",
    first_expansion=1,
    eta_rule="scaled",
    gamma=0.0125,
    bound_factor=3.0,
    task_loss="running_average",
    on_failure="best",
    epochs=6,
    refine_epochs=24,
    batch_size=128,
    learning_rate=2e-2,
    weight_decay=5e-2,
    threads=1,
)


def prepare(config: RecipeConfig) -> Prepared:
    """Convolutional teacher and members on 8x8 scans."""
    return Prepared(
        digits.load(config.seed),
        Convolutional(widths=config.teacher_widths, blocks=config.teacher_blocks),
        (Convolutional(widths=config.member_widths, blocks=config.member_blocks),),
    )


RECIPE = Recipe("digits", "scikit-learn's 1797 handwritten digits, 8x8 pixels; convolutional", CONFIG, prepare)
