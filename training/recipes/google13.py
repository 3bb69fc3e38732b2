"""Google-13: twelve spoken words and one class for the others, from log-mel windows; wants a GPU."""

from training.config import RecipeConfig
from training.data import speech_commands
from training.recipes.recipe import Prepared, Recipe
from training.recipes.recurrent import RecurrentConfig, prepare_recurrent

CONFIG = RecurrentConfig(
    name="google13",
    url=speech_commands.ARCHIVE.url,
    checksum=speech_commands.ARCHIVE.checksum,
    cell="lstm",
    teacher_widths=(128,),
    teacher_blocks=1,
    teacher_epochs=30,
    member_widths=(16,),
    connection="dense",
    first_expansion=1,
    eta_rule="scaled",
    task_loss="running_average",
    judged_steps="every",
    chunk_steps=11,
    on_failure="best",
    batch_size=256,
    learning_rate=5e-3,
)


def prepare(config: RecipeConfig) -> Prepared:
    """LSTM teacher and members over 99 steps of 32 features; the widths are our choice, the paper gives none."""
    if not isinstance(config, RecurrentConfig):
        raise TypeError("the google13 recipe needs a RecurrentConfig")
    return prepare_recurrent(config, speech_commands.load(config.fetch(speech_commands.ARCHIVE)))


RECIPE = Recipe(
    "google13", "12 spoken words and the rest, Speech Commands v0.01; LSTM: --set archives=DIR", CONFIG, prepare
)
