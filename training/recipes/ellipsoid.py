"""Ellipsoid (section 5.1): a synthetic binary problem for fully connected networks."""

from training.config import RecipeConfig
from training.data import ellipsoid
from training.networks import FullyConnected
from training.recipes.recipe import Prepared, Recipe

CONFIG = RecipeConfig(
    name="ellipsoid",
    teacher_widths=(64, 64),
    teacher_epochs=20,
    member_widths=(8, 8),
    connection="residual",
    first_expansion=1,
    max_search=1,
    eta_rule="scaled",
    gamma=0.05,
    bound_factor=3.0,
    task_loss="running_average",
    on_failure="best",
    epochs=10,
    refine_epochs=30,
    batch_size=256,
    learning_rate=2e-2,
    weight_decay=5e-2,
    threads=1,
)


def prepare(config: RecipeConfig) -> Prepared:
    """Fully connected teacher and members on 32 coordinates."""
    return Prepared(
        ellipsoid.load(config.seed),
        FullyConnected(widths=config.teacher_widths, blocks=config.teacher_blocks),
        (FullyConnected(widths=config.member_widths, blocks=config.member_blocks),),
    )


RECIPE = Recipe("ellipsoid", "32-d points in or out of a random ellipsoid; fully connected", CONFIG, prepare)
