"""Cube (section 5.1): a synthetic four-class problem for convolutional networks."""

from training.config import RecipeConfig
from training.data import cube
from training.networks import Convolutional
from training.recipes.recipe import Prepared, Recipe

CONFIG = RecipeConfig(
    name="cube",
    teacher_widths=(16, 32),
    teacher_epochs=12,
    member_widths=(4, 8),
    connection="none",
    max_search=1,
    eta_rule="scaled",
    gamma=0.05,
    bound_factor=3.0,
    task_loss="running_average",
    on_failure="best",
    epochs=24,
    batch_size=256,
    learning_rate=4e-2,
    weight_decay=5e-2,
    threads=1,
)


def prepare(config: RecipeConfig) -> Prepared:
    """Convolutional teacher and members on 32 coordinates laid out as 4x8.

    The members see nobody and are not refined: of all that was tried this has the lowest validation loss
    (docs/refinement.md).
    """
    return Prepared(
        cube.load(config.seed),
        Convolutional(widths=config.teacher_widths, blocks=config.teacher_blocks),
        (Convolutional(widths=config.member_widths, blocks=config.member_blocks),),
    )


RECIPE = Recipe("cube", "32-d points by the nearest of 16 cube vertices, four classes; convolutional", CONFIG, prepare)
