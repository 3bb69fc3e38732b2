"""``train-ensemble search RECIPE``: gamma, temperature, connection and member width that suit a recipe's data.

A setting is judged by the area under the accuracy-cost curve of the ensemble that it trains, on the validation part;
the test part is not looked at. Trials are kept beside the bundles, and the same command goes on where it was ended.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import shlex
import typing
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from torch import nn

from training import flops
from training.bdistil import run_rounds
from training.checkpoint import Checkpoint
from training.config import RecipeConfig
from training.connections import Kind
from training.determinism import derive_seed, repeatable
from training.ensemble import Ensemble, Features
from training.errors import BadConfig, NoWeakLearner
from training.fingerprint import fingerprint
from training.game import Game
from training.lock import alone
from training.networks import scale_widths
from training.pipeline import game_of
from training.progress import Quiet, Reporter
from training.recipes import RECIPES, Prepared, Recipe
from training.refine import refine
from training.teacher import prepare_teacher

FOLDER = ".search"
"""Beside a bundle's versions: the trials and their teacher; it may be deleted at any time."""
LOOKED_FOR = ("gamma", "temperature", "connection")
"""Settings that a trial replaces; `member_widths` it multiplies by a width, so theirs are part of what is searched."""


def parser() -> argparse.ArgumentParser:
    """The arguments of ``train-ensemble search``."""
    parser = argparse.ArgumentParser(
        prog="train-ensemble search",
        description="Look for settings of a recipe by training ensembles, going on where the search was ended.",
    )
    parser.add_argument("recipe", metavar="RECIPE", help=f"one of: {', '.join(RECIPES)}")
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="how many, with earlier ones (20)")
    parser.add_argument("--models", type=Path, default=Path("models"), metavar="DIR", help="where bundles are (models)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting; repeatable")
    return parser


def search(arguments: Sequence[str], reporter: Reporter) -> list[str]:
    """Do what the arguments say; returns the lines to print, the last of them settings for ``train-ensemble``.

    Raises:
        BadConfig: no such recipe or setting, found before anything is trained.
    """
    options = parser().parse_args(arguments)
    recipe = RECIPES.get(options.recipe)
    if recipe is None:
        raise BadConfig(f"There is no recipe {options.recipe!r}; there are: {', '.join(RECIPES)}.")
    if options.trials < 1:
        raise BadConfig(f"--trials {options.trials} must be at least 1.")
    _check_free(options.set)
    best = run(recipe, recipe.config.override(options.set), options.models, options.trials, reporter)
    settings = [*options.set, *(f"{key}={_text(value)}" for key, value in best.user_attrs["settings"].items())]
    return [
        f"best of {options.trials} trials is number {best.number}: area {best.value:.4f} on the validation part",
        command(recipe, settings),
    ]


def command(recipe: Recipe, settings: Sequence[str]) -> str:
    """What trains with these settings, each as ``key=value``: a line for a shell, whatever is in them."""
    return shlex.join(["train-ensemble", recipe.name, *(word for one in settings for word in ("--set", one))])


def _check_free(assignments: Sequence[str]) -> None:
    """Raise BadConfig when a setting is given that every trial would replace."""
    for key in (assignment.partition("=")[0] for assignment in assignments):
        if key in LOOKED_FOR:
            raise BadConfig(
                f"A search looks for {key} itself, so --set {key} would be ignored: leave it out "
                "(member_widths may be set; every trial multiplies them by a width)."
            )


def run(recipe: Recipe, config: RecipeConfig, models: Path, trials: int, reporter: Reporter) -> FrozenTrial:
    """Complete the search up to `trials` trials; returns the best of all."""
    folder = models / config.name / FOLDER
    prepared = recipe.prepare(config)
    if prepared.data.task == "regression":
        raise BadConfig(f"A search compares accuracies, but {recipe.name} is a regression, which has none.")
    identity = _identity(recipe, config, prepared)
    busy = f"Another search is going on in {folder}: the same command goes on from it when it has ended."
    with alone(folder, busy), repeatable(config.threads):
        study = _open(folder, identity, config.seed)
        teacher = prepare_teacher(prepared, config, Checkpoint(folder / f"teacher-{identity}", identity), reporter)
        if not isinstance(teacher, nn.Module):
            raise BadConfig("A search needs a teacher whose cost is known, but there are only its logits.")
        while len(study.get_trials(states=(TrialState.COMPLETE,))) < trials:
            trial = study.ask()
            tried = suggest(trial, config)
            trial.set_user_attr("settings", {key: getattr(tried, key) for key in (*LOOKED_FOR, "member_widths")})
            checkpoint = Checkpoint(folder / "trial", f"{identity} {trial.number}")
            with checkpoint.started(resume=False):
                classes = recipe.prepare(tried).classes
                value = judge(game_of(teacher, prepared.data, classes, tried, checkpoint, Quiet()))
                checkpoint.remove()
            study.tell(trial, value)
            reporter.say(f"trial {trial.number}: area {value:.4f} with {trial.user_attrs['settings']}")
    return study.best_trial


def _open(folder: Path, identity: str, seed: int) -> optuna.Study:
    """The study of this very search; a trial that was interrupted counts as failed."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(folder / "trials.log")))
    with contextlib.suppress(KeyError):
        done = len(optuna.load_study(study_name=identity, storage=storage).trials)
        seed = derive_seed(seed, "search", done)  # or a search that goes on would propose its first trials again
    sampler = optuna.samplers.TPESampler(seed=seed % 2**32)
    study = optuna.create_study(
        study_name=identity, storage=storage, sampler=sampler, direction="maximize", load_if_exists=True
    )
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def _identity(recipe: Recipe, config: RecipeConfig, prepared: Prepared) -> str:
    """Of what all trials have in common."""
    fixed = {key: value for key, value in config.record().items() if key not in LOOKED_FOR}
    return fingerprint(f"search {recipe.name}", fixed, prepared.data, prepared.classes, prepared.teacher)[:16]


def suggest(trial: optuna.Trial, config: RecipeConfig) -> RecipeConfig:
    """The recipe's settings with those of a trial."""
    widths = scale_widths(config.member_widths, trial.suggest_float("width", 0.5, 1.5))
    return dataclasses.replace(
        config,
        gamma=float(f"{trial.suggest_float('gamma', 1e-3, 1e2, log=True):.3g}"),
        temperature=float(f"{trial.suggest_float('temperature', 1.0, 8.0, log=True):.3g}"),
        connection=trial.suggest_categorical("connection", typing.get_args(Kind)),
        member_widths=widths,
    )


def judge(game: Game) -> float:
    """Train an ensemble, and measure its area; one without members answers by chance at any cost."""
    chance = 1 / len(game.data.classes)
    try:
        ensemble = refine(game, run_rounds(game)).ensemble
    except NoWeakLearner:
        return area([], [], chance)
    return area(*curve(game, ensemble), chance)


def curve(game: Game, ensemble: Ensemble) -> tuple[list[float], list[float]]:
    """Cost, as a share of the teacher's FLOPs, and validation accuracy of every prefix."""
    unit = game.target.teacher.flops or math.inf
    features, cost = Features(ensemble.validation.x), 0.0
    total_NL = torch.zeros_like(ensemble.teacher_validation_NL)
    costs, accuracies = list[float](), list[float]()
    for member in ensemble.members:
        cost += flops.count(member.network, features.x[:1], features.read(member.sources, slice(0, 1))).total / unit
        total_NL = total_NL + features.extend(member)
        costs.append(cost)
        accuracies.append(float((total_NL.argmax(dim=1).cpu().numpy() == game.data.validation.y).mean()))
    return costs, accuracies


def area(costs: Sequence[float], accuracies: Sequence[float], chance: float) -> float:
    """Mean accuracy over budgets drawn evenly from nothing to the teacher's cost.

    A budget is answered by the largest prefix that it pays for, and by chance when it pays for none.

    Args:
        costs: of the prefixes, ascending, as shares of the teacher's.
        accuracies: of the prefixes.
        chance: accuracy of an answer without any member.
    """
    edges = [0.0, *(min(1.0, cost) for cost in costs), 1.0]
    heights = [chance, *accuracies]
    return sum(height * (after - before) for height, (before, after) in zip(heights, pairwise(edges), strict=True))


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
