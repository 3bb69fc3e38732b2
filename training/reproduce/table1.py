"""Table 1: what can be said of a sequence after half and three quarters of its steps, and at the end."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt

from training.baselines.ernn import ernn
from training.baselines.no_resched import within
from training.config import RecipeConfig
from training.data import Data
from training.early import early_row, look, look_ensemble
from training.errors import BadConfig
from training.game import Game
from training.networks import Recurrent, RecurrentNetwork
from training.reproduce import arms
from training.reproduce.bench import Bench
from training.reproduce.experiment import Arm, Cell, Experiment, Values
from training.reproduce.table import markdown, percent, spread

EVERY = {"dsa19": 5, "google13": 3}
"""Steps between two looks; they divide the 125 and the 99 steps. At other sequences, after each frame."""
KEPT_MISTAKES = 20
"""Pairs of classes that are recorded for each seed."""
YOURS = "npz"
"""The recipe of the user's own sequences, whose rows are called by the setting `name`."""
BDISTIL, SAME_WIDTH, SAME_COST = "B-DISTIL", "E-RNN, a member's width", "E-RNN, the ensemble's cost"
Array = npt.NDArray[np.float32]
PAPER = {
    ("google13", "E-RNN"): ("88.31", "0.48", "88.42", "0.65", "92.43"),
    ("google13", "B-DISTIL"): ("87.41", "0.49", "89.31", "0.71", "92.25"),
    ("dsa19", "E-RNN"): ("83.5", "0.55", "83.6", "0.56", "86.8"),
    ("dsa19", "B-DISTIL"): ("82.1", "0.53", "84.1", "0.58", "87.2"),
}
"""As printed."""


def judged_at_every_step(config: RecipeConfig) -> RecipeConfig:
    """The early-classification loss as L_task, as in the paper's Table 1."""
    return dataclasses.replace(config, judged_steps="every")


def run_bdistil(bench: Bench, config: RecipeConfig) -> Values:
    """The whole ensemble."""
    with _game(bench, config) as game:
        ensemble, every = arms.decompose(game).ensemble, _every(bench, game)
        validation, test = (
            look_ensemble(ensemble, split, every)[-1] for split in (game.data.validation, game.data.test)
        )
        row = early_row(game.data, validation, test, every)
        return {
            "members": len(ensemble),
            "teacher_accuracy": game.target.teacher.accuracy,
            "mistakes": _mistakes(test[:, -1], game.data),
            **dataclasses.asdict(row),
        }


def run_same_width(bench: Bench, config: RecipeConfig) -> Values:
    """One network of a member's class."""
    with _game(bench, config) as game:
        return _ernn(game, _class(game), _every(bench, game))


def run_same_cost(bench: Bench, config: RecipeConfig) -> Values:
    """One network as wide as the FLOPs of the whole ensemble allow."""
    with _game(bench, config) as game:
        widest = within(game, _class(game), arms.budgets_of(game)[-1])
        return _ernn(game, dataclasses.replace(_class(game), widths=_widths(widest)), _every(bench, game))


def _ernn(game: Game, model_class: Recurrent, every: int) -> Values:
    network: RecurrentNetwork = ernn(game, model_class)
    validation, test = (look(network, split, every) for split in (game.data.validation, game.data.test))
    return {"network": model_class.name, **dataclasses.asdict(early_row(game.data, validation, test, every))}


def _every(bench: Bench, game: Game) -> int:
    """Steps between two looks."""
    return EVERY.get(bench.recipe.name, _class(game).frame)


def _mistakes(logits_NL: Array, data: Data) -> Values:
    """The pairs of classes that are mistaken most often at the end, and for how large a share of all test samples."""
    given_N = logits_NL.argmax(axis=1)
    wrong_N = given_N != data.test.y
    pairs = Counter(zip(data.test.y[wrong_N].tolist(), given_N[wrong_N].tolist(), strict=True))
    most = pairs.most_common(KEPT_MISTAKES)
    return {f"{data.classes[true]} for {data.classes[given]}": count / len(given_N) for (true, given), count in most}


def _game(bench: Bench, config: RecipeConfig) -> AbstractContextManager[Game]:
    """A game of recurrent members; others are refused before a teacher is trained."""
    model_class = bench.prepared.classes[0]
    if not isinstance(model_class, Recurrent):
        raise BadConfig(f"Table 1 is about recurrent members, and {model_class.name} is none: use family=lstm or gru.")
    return bench.game(config)


def _class(game: Game) -> Recurrent:
    model_class = game.classes[0]
    if not isinstance(model_class, Recurrent):
        raise TypeError("the members of Table 1 are recurrent")
    return model_class


def _widths(model_class: object) -> tuple[int, ...]:
    if not isinstance(model_class, Recurrent):
        raise TypeError("a recurrent class scales to another")
    return model_class.widths


def report(cells: Sequence[Cell]) -> str:
    """Ours and the paper's, then the accuracy of an answer that is forced."""
    header = ["data", "method", "acc. 50 %", "left", "acc. 75 %", "left", "acc. 100 %", "seeds"]
    rows, forced = list[list[object]](), list[list[object]]()
    for data in dict.fromkeys((*EVERY, *map(_data, cells))):
        for arm in (BDISTIL, SAME_WIDTH, SAME_COST):
            of = [cell.values["instants"] for cell in cells if (_data(cell), cell.arm) == (data, arm)]
            if of:
                rows.append([data, arm, *_columns(of), len(of)])
                forced.append([data, arm, *(percent([one[at]["forced"] for one in of]) for at in range(3))])
        rows += [[data, f"{who} in the paper", *row, ""] for (name, who), row in PAPER.items() if name == data]
    tables = markdown(header, rows), markdown(["data", "method", "50 %", "75 %", "100 %"], forced)
    return "\n\n".join([_EXPLANATION, tables[0], _FORCED, tables[1], *_by_seed(cells)])


def _data(cell: Cell) -> str:
    """What the rows of a cell's data are called; a user's own of a data set's name are no part of its mean."""
    if cell.recipe != YOURS:
        return cell.recipe
    name = str(cell.config["name"])
    return f"{name} ({YOURS})" if name in EVERY else name


_EXPLANATION = """A sequence leaves at the first look at which the largest probability reaches a threshold. The
threshold, and the temperature of each look, are fixed on validation for each method and seed. "Left" is the share that
has left by then, "acc." the accuracy when those keep their answer and all others wait for the end; at 100 % it is that
of the last step, without threshold. The paper's E-RNN row of Google-13 is copied from Dennis et al. (2018), whose
table has these accuracies at 55 and 75 % of the steps under a hidden size of 32, and 92.43 under 64: two models, so it
is no target. How DSA-19's persons were split there is not known; here the seed draws four to train on, two to choose
on, two to test on. Rows of other data are a user's own sequences (`--recipe npz --set data=FILE.npz --set name=NAME`).
What was tried, and what the limit seems to be, is in [recurrent.md](recurrent.md)."""
_FORCED = "Accuracy in % when everybody must be answered after that share of the steps:"


def _columns(of: Sequence[Sequence[Values]]) -> list[str]:
    columns = list[str]()
    for at in (0, 1):
        columns += [percent([one[at]["accuracy"] for one in of]), spread([one[at]["exited"] for one in of])]
    return [*columns, percent([one[2]["forced"] for one in of])]


def _by_seed(cells: Sequence[Cell]) -> list[str]:
    """Every seed, because splits by person differ more than the methods do; and what is mistaken for what."""
    lines = list[str]()
    for data in dict.fromkeys(map(_data, cells)):
        of = [cell for cell in cells if _data(cell) == data and cell.arm == BDISTIL]
        if len(of) > 1:
            lines.append(f"{data}, {BDISTIL} at 100 % by seed: {_listed(_forced(cell) for cell in of)}.")
        if of:
            lines.append(f"{data}, its teacher by seed: {_listed(cell.values['teacher_accuracy'] for cell in of)}.")
            lines.append(f"{data}, mistaken most often, in % of all test samples: {_most_mistaken(of)}.")
    return lines


def _forced(cell: Cell) -> float:
    accuracy: float = cell.values["instants"][-1]["forced"]
    return accuracy


def _listed(shares: Iterable[float]) -> str:
    return ", ".join(f"{100 * share:.2f}" for share in shares)


def _most_mistaken(cells: Sequence[Cell], count: int = 6) -> str:
    """Means over seeds."""
    total = dict[str, float]()
    for cell in cells:
        for pair, share in cell.values["mistakes"].items():
            total[pair] = total.get(pair, 0) + share / len(cells)
    most = sorted(total, key=lambda pair: -total[pair])[:count]
    return "; ".join(f"{pair} {100 * total[pair]:.2f}" for pair in most)


EXPERIMENT = Experiment(
    name="table1",
    summary="early prediction on DSA-19 and Google-13: B-DISTIL against E-RNN",
    arms=tuple(
        Arm(name=name, recipe=recipe, run=run, settings=judged_at_every_step, on_request=recipe == YOURS)
        for recipe in (*EVERY, YOURS)
        for name, run in ((BDISTIL, run_bdistil), (SAME_WIDTH, run_same_width), (SAME_COST, run_same_cost))
    ),
    seeds=5,
    report=report,
)
