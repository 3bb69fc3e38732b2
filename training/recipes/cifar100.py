"""CIFAR-100: small photographs; wants a GPU."""

from training.config import RecipeConfig
from training.data import cifar
from training.data.cifar import CIFAR100
from training.recipes.recipe import Prepared, Recipe
from training.recipes.residual import ResidualConfig, prepare_residual

CONFIG = ResidualConfig(
    name="cifar100",
    url=CIFAR100.archive.url,
    checksum=CIFAR100.archive.checksum,
    teacher_widths=(16, 32, 64),
    teacher_blocks=9,
    teacher_epochs=30,
    member_widths=(16, 32, 64),
    rounds=5,
    connection="dense",
    first_expansion=1,
    eta_rule="scaled",
    task_loss="running_average",
    on_failure="best",
    epochs=5,
    refine_epochs=30,
    batch_size=256,
)


def prepare(config: RecipeConfig) -> Prepared:
    """A ResNet-56, published or trained here, and members of one block a stage: an eighth of its cost each."""
    if not isinstance(config, ResidualConfig):
        raise TypeError("the cifar100 recipe needs a ResidualConfig")
    return prepare_residual(config, cifar.load(CIFAR100, config.fetch(CIFAR100.archive), config.seed))


RECIPE = Recipe(
    "cifar100", "CIFAR-100 from its binary archive, 32x32 RGB; residual: --set archives=DIR", CONFIG, prepare
)
