"""CIFAR-10: small photographs; wants a GPU."""

from training.config import RecipeConfig
from training.data import cifar
from training.data.cifar import CIFAR10
from training.recipes.recipe import Prepared, Recipe
from training.recipes.residual import ResidualConfig, prepare_residual

CONFIG = ResidualConfig(
    name="cifar10",
    url=CIFAR10.archive.url,
    checksum=CIFAR10.archive.checksum,
    teacher_widths=(16, 32, 64),
    teacher_blocks=9,
    teacher_epochs=30,
    member_widths=(16, 32, 56),
    rounds=7,
    connection="residual",
    first_expansion=1,
    max_search=1,
    eta_rule="scaled",
    task_loss="running_average",
    on_failure="best",
    augment="crop_flip",
    epochs=10,
    refine_epochs=80,
    learning_rate=5e-3,
    refine_learning_rate=5e-3,
    weight_decay=5e-2,
    batch_size=256,
)


def prepare(config: RecipeConfig) -> Prepared:
    """A ResNet-56, published or trained here, and members of one block a stage: a ninth of its cost each.

    Each adds the taps of the member before it, so that seven are a chain of seven blocks a stage, for 0.77 of the cost.
    """
    if not isinstance(config, ResidualConfig):
        raise TypeError("the cifar10 recipe needs a ResidualConfig")
    return prepare_residual(config, cifar.load(CIFAR10, config.fetch(CIFAR10.archive), config.seed))


RECIPE = Recipe("cifar10", "CIFAR-10 from its binary archive, 32x32 RGB; residual: --set archives=DIR", CONFIG, prepare)
