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
    frame_steps=5,
    teacher_widths=(128,),
    teacher_blocks=1,
    teacher_epochs=12,
    member_widths=(32,),
    rounds=4,
    connection="dense",
    first_expansion=1,
    max_search=1,
    eta_rule="scaled",
    bound_factor=3.0,
    task_loss="running_average",
    judged_steps="every",
    chunk_steps=25,
    on_failure="best",
    # Passes over a training part in which every window comes four times; the rounds only lay the ground.
    epochs=2,
    refine_epochs=10,
    batch_size=128,
)


def prepare(config: RecipeConfig) -> Prepared:
    """GRU teacher and members over 125 steps of 45 channels; the widths are our choice, the paper gives none."""
    if not isinstance(config, RecurrentConfig):
        raise TypeError("the dsa19 recipe needs a RecurrentConfig")
    return prepare_recurrent(config, daily_sports.load(config.fetch(daily_sports.ARCHIVE), config.seed))


RECIPE = Recipe(
    "dsa19", "19 activities from body-worn sensors, split by person; GRU: --set archives=DIR", CONFIG, prepare
)
