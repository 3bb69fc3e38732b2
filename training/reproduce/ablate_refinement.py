"""What brings prefixes closer to single models: how refinement is weighted, begun and scheduled, of which members."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from training import picture
from training.config import RecipeConfig
from training.networks import ModelClass
from training.reproduce import arms
from training.reproduce.ablate_gamma import OFF
from training.reproduce.bench import Bench
from training.reproduce.experiment import Arm, Cell, Experiment, Values
from training.reproduce.prefixes import ensemble_points
from training.reproduce.series import Series, draw_by_flops
from training.reproduce.table import markdown, percent
from training.search import area, curve

DATA_SETS = ("digits", "ellipsoid")
"""Those whose recipes refine connected members."""
RECIPE = "the recipe"
SIZES: dict[str, dict[str, tuple[tuple[int, ...], int, int]]] = {
    "digits": {
        "wider members": ((3, 5), 1, 3),
        "deeper members": ((2, 4), 2, 3),
        "narrower members": ((1, 3), 1, 13),
    },
    "ellipsoid": {
        "wider members": ((11, 11), 1, 4),
        "deeper members": ((8, 8), 2, 5),
        "narrower members": ((6, 6), 1, 10),
    },
}
"""Widths and blocks of a member, and as many rounds as the recipe's ensemble pays for."""


@dataclass(frozen=True, slots=True)
class Change:
    """One difference to the recipe."""

    text: str
    settings: Callable[[RecipeConfig], RecipeConfig]


def _set(**changes: object) -> Callable[[RecipeConfig], RecipeConfig]:
    return lambda config: dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def _split(rounds: float) -> Callable[[RecipeConfig], RecipeConfig]:
    """The same passes in all, this share of them in the rounds, at least one."""

    def settings(config: RecipeConfig) -> RecipeConfig:
        total = config.epochs + config.refine_epochs
        epochs = max(1, round(rounds * total))
        return dataclasses.replace(config, epochs=epochs, refine_epochs=total - epochs)

    return settings


def _longer(config: RecipeConfig) -> RecipeConfig:
    return dataclasses.replace(config, epochs=2 * config.epochs, refine_epochs=2 * config.refine_epochs)


def _resized(name: str) -> Callable[[RecipeConfig], RecipeConfig]:
    def settings(config: RecipeConfig) -> RecipeConfig:
        widths, blocks, rounds = SIZES[config.name][name]
        return dataclasses.replace(config, member_widths=widths, member_blocks=blocks, rounds=rounds)

    return settings


CHANGES = {
    RECIPE: Change("residual connections, a fifth or a quarter of the passes in the rounds, prefixes alike", _set()),
    "early prefixes": Change("prefix k weighs 1/k in refinement", _set(refine_emphasis=-1.0)),
    "late prefixes": Change("prefix k weighs k", _set(refine_emphasis=1.0)),
    "hardly any rounds": Change("one pass in the rounds, all others in refinement", _split(0.0)),
    "long rounds": Change("half of the passes in the rounds", _split(0.5)),
    "no barrier": Change("gamma off: the rounds are plain distillation of the running average", _set(gamma=OFF)),
    "weighted barrier": Change("each sample and label of the barrier counts with |K+ - K-|", _set(barrier="weighted")),
    "saturating barrier": Change("no reward for more than undoing the residual so far", _set(barrier="saturating")),
    "labels": Change("half as much cross-entropy on the labels added to every loss", _set(label_weight=0.5)),
    "twice the passes": Change("rounds and refinement twice as long", _longer),
    "wider members": Change("fewer of them at the same cost", _resized("wider members")),
    "deeper members": Change("two blocks a stage, fewer members at the same cost", _resized("deeper members")),
    "narrower members": Change("more of them at the same cost", _resized("narrower members")),
}
COLOURS = {
    RECIPE: picture.BLUE,
    "hardly any rounds": picture.ORANGE,
    "twice the passes": picture.GREEN,
    "wider members": picture.RED,
    "deeper members": picture.PURPLE,
    "narrower members": picture.GREY,
}
"""Of the arms that are drawn: the others end too close to the recipe to be told apart."""


def run(bench: Bench, config: RecipeConfig) -> Values:
    """Train the ensemble with members of the size that the settings say; its prefixes on validation and test."""
    with bench.game(config, classes=classes_of(bench, config)) as game:
        outcome = arms.decompose(game)
        points = ensemble_points(game, outcome.ensemble, None)
        for point, accuracy in zip(points, curve(game, outcome.ensemble)[1], strict=True):
            point["validation"] = accuracy
        return {"points": points, "chance": 1 / len(game.data.classes), **arms.rounds_of(outcome)}


def classes_of(bench: Bench, config: RecipeConfig) -> tuple[ModelClass]:
    """The recipe's family of members in the size that the settings say."""
    return (arms.resized(bench.prepared.classes[0], widths=config.member_widths, blocks=config.member_blocks),)


def report(cells: Sequence[Cell]) -> str:
    """One row for each data set and change, against the recipe."""
    header = [
        "data",
        "change",
        "members",
        "prefix 1",
        "mean over prefixes",
        "all members",
        "mean over budgets",
        "the same on validation",
        "seeds",
    ]
    rows = [row for data_set in DATA_SETS for row in _rows(data_set, cells)]
    lines = [f"- {name}: {change.text}." for name, change in CHANGES.items()]
    return "\n".join([_EXPLANATION, *lines, "", markdown(header, rows)])


_EXPLANATION = """Accuracy in % of the recipe, and under it what each change adds, in points, paired by seed. A budget
is answered by the largest prefix that it pays for, and by chance when it pays for none; budgets are even from nothing
to the cost of the recipe's ensemble. The mean over prefixes is only taken where there are as many of them. A change to
the recipe would have to be chosen by the last column but one. The changes:
"""


def draw(cells: Sequence[Cell], path: Path) -> None:
    """Accuracy by number of FLOPs, one panel for each data set."""
    draw_by_flops(cells, DATA_SETS, {name: (colour, "o-") for name, colour in COLOURS.items()}, path, height=4.4)


def _rows(data_set: str, cells: Sequence[Cell]) -> list[list[object]]:
    series = Series([cell for cell in cells if cell.recipe == data_set])
    return [[data_set, name, *_row(series, name)] for name in CHANGES if series.of(name)]


def _row(series: Series, name: str) -> list[object]:
    ours, theirs = series.longest(name), series.longest(RECIPE)
    (whole,) = set(series.flops(RECIPE, theirs - 1))
    measures = [
        _by_seed(series, name, _first),
        _by_seed(series, name, _mean),
        _by_seed(series, name, _last),
        _by_seed(series, name, partial(_over_budgets, part="accuracy", whole=whole)),
        _by_seed(series, name, partial(_over_budgets, part="validation", whole=whole)),
    ]
    cells = [_signed(values, plain=name == RECIPE) for values in measures]
    if ours != theirs:
        cells[1] = "—"
    return [ours, *cells, len(series.of(name))]


def _by_seed(series: Series, name: str, measure: Callable[[Values], float]) -> list[float]:
    """What `measure` says of an arm; of all but the recipe, beyond what it says of the recipe on the same seed."""
    recipe = {cell.seed: measure(cell.values) for cell in series.of(RECIPE)}
    if name == RECIPE:
        return list(recipe.values())
    return [measure(cell.values) - recipe[cell.seed] for cell in series.of(name) if cell.seed in recipe]


def _signed(values: Sequence[float], *, plain: bool) -> str:
    text = percent(values)
    return text if plain or text.startswith(("-", "—")) else f"+{text}"


def _first(values: Values) -> float:
    accuracy: float = values["points"][0]["accuracy"]
    return accuracy


def _mean(values: Values) -> float:
    return statistics.fmean(point["accuracy"] for point in values["points"])


def _last(values: Values) -> float:
    accuracy: float = values["points"][-1]["accuracy"]
    return accuracy


def _over_budgets(values: Values, part: str, whole: float) -> float:
    points = values["points"]
    return area([point["flops"] / whole for point in points], [point[part] for point in points], values["chance"])


EXPERIMENT = Experiment(
    name="ablate-refinement",
    summary="weights over prefixes, split, barrier, labels, length, width and depth of members, one at a time",
    arms=tuple(
        Arm(name=name, recipe=data_set, run=run, settings=change.settings)
        for data_set in DATA_SETS
        for name, change in CHANGES.items()
    ),
    seeds=3,
    report=report,
    draw=draw,
)
