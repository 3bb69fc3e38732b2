"""DSA-19: nineteen activities of eight people from sensors on the body; the seed decides who is tested on."""

from training.config import RecipeConfig
from training.data import daily_sports
from training.recipes.recipe import Prepared, Recipe
from training.recipes.recurrent import RecurrentConfig, prepare_recurrent

CONFIG = RecurrentConfig(
    name="dsa19",
    url=daily_sports.ARCHIVE.url,
    checksum=daily_sports.ARCHIVE.checksum,
    cell="gru",
    teacher_widths=(64,),
    teacher_blocks=1,
    teacher_epochs=30,
    member_widths=(16,),
    connection="dense",
    first_expansion=1,
    eta_rule="scaled",
    task_loss="running_average",
    on_failure="best",
    learning_rate=5e-3,
)


def prepare(config: RecipeConfig) -> Prepared:
    """GRU teacher and members over 125 steps of 45 channels; the widths are our choice, the paper gives none."""
    if not isinstance(config, RecurrentConfig):
        raise TypeError("the dsa19 recipe needs a RecurrentConfig")
    return prepare_recurrent(config, daily_sports.load(config.fetch(daily_sports.ARCHIVE), config.seed))


RECIPE = Recipe(
    "dsa19", "19 activities from body-worn sensors, split by person; GRU: --set archives=DIR", CONFIG, prepare
)
