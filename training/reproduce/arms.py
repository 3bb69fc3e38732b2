"""The ways to an answer that the experiments compare, each as a function of a bench and settings.

Every arm gets the same passes over the training set for every member, and the same teacher, loss and optimiser:
where the recipe refines after the rounds, an arm that does not has those epochs in its rounds.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn

from training import flops
from training.baselines import batch_ensemble, multi_exit, no_resched, resched, snapshot
from training.bdistil import Outcome, run_rounds
from training.config import Config, RecipeConfig
from training.ensemble import Features
from training.errors import NoWeakLearner
from training.game import Game
from training.networks import ModelClass
from training.refine import refine
from training.reproduce.bench import Bench
from training.reproduce.experiment import Values
from training.reproduce.prefixes import baseline_points, ensemble_points
from training.targets import Logits

PAPER_KEYS = (
    "expansions",
    "first_expansion",
    "eta",
    "eta_rule",
    "task_loss",
    "barrier",
    "label_weight",
    "on_failure",
)
"""Settings that a recipe may change and the paper fixes; their defaults in `Config` are the paper's."""


def paper(config: RecipeConfig) -> RecipeConfig:
    """Literally Algorithms 1 and 2: Eq. 6 on the member alone, Definition 1, eta = 1, stop where no learner is found.

    What the paper leaves open stays the recipe's: gamma, the bound B, the connection, the networks, their optimiser.
    """
    fixed: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(Config)}
    connection = config.connection if config.connection != "none" else fixed["connection"]
    changes = {key: fixed[key] for key in PAPER_KEYS}
    return dataclasses.replace(unrefined(config), **changes, connection=connection)


def unrefined(config: RecipeConfig) -> RecipeConfig:
    """The recipe's rounds alone, with all epochs in them."""
    return dataclasses.replace(config, epochs=config.epochs + config.refine_epochs, refine_epochs=0)


def unconnected(config: RecipeConfig) -> RecipeConfig:
    """The recipe's rounds, in which no member sees another: reweighting alone."""
    return dataclasses.replace(unrefined(config), connection="none", first_expansion=0)


def run_bdistil(bench: Bench, config: RecipeConfig) -> Values:
    """B-DISTIL under the arm's settings: its prefixes, what each round found, and why it stopped."""
    try:
        with bench.game(config) as game:
            outcome = decompose(game)
            return {"points": ensemble_points(game, outcome.ensemble, bench.stopwatch), **rounds_of(outcome)}
    except NoWeakLearner as error:
        return {"points": [], "rounds": [], "sources": [], "stopped": str(error)}


def decompose(game: Game) -> Outcome:
    """The rounds, and the refinement if the settings ask for it."""
    return refine(game, run_rounds(game))


def rounds_of(outcome: Outcome) -> Values:
    """What was found in each round, and whom each member reads."""
    members = outcome.ensemble.members
    return {
        "rounds": [member.round.model_dump() for member in members],
        "sources": [list(member.sources) for member in members],
        "stopped": outcome.stopped,
        "refinement": outcome.refinement.model_dump() if outcome.refinement else None,
    }


def run_resched(bench: Bench, config: RecipeConfig) -> Values:
    """Independent members."""
    with bench.game(config) as game:
        return {"points": baseline_points(game, resched(game, game.classes[0], config.rounds), bench.stopwatch)}


def run_no_resched(bench: Bench, config: RecipeConfig) -> Values:
    """A single model for each budget of the ensemble."""
    with bench.game(config) as game:
        answers = no_resched(game, families(bench), budgets_of(game))
        return {
            "points": baseline_points(game, answers, bench.stopwatch),
            "chosen": [getattr(network, "name", "") for (network,) in answers],
        }


def run_snapshot(bench: Bench, config: RecipeConfig) -> Values:
    """Snapshots of one network."""
    with bench.game(config) as game:
        return {"points": baseline_points(game, snapshot(game, game.classes[0], config.rounds), bench.stopwatch)}


def run_batch_ensemble(bench: Bench, config: RecipeConfig) -> Values:
    """Members that share their weights."""
    with bench.game(config) as game:
        return {"points": baseline_points(game, batch_ensemble(game, game.classes[0], config.rounds), bench.stopwatch)}


def run_multi_exit(bench: Bench, config: RecipeConfig) -> Values:
    """One chain of blocks with exits, of the cost of the whole ensemble."""
    with bench.game(config) as game:
        answers = multi_exit(game, families(bench)[0], config.rounds, budgets_of(game)[-1])
        return {"points": baseline_points(game, answers, bench.stopwatch)}


def run_teacher(bench: Bench, config: RecipeConfig) -> Values:
    """The teacher itself: one point, without FLOPs and times where only its logits are known."""
    with bench.game(config) as game:
        known, teacher = game.target.teacher, bench.teacher
        if isinstance(teacher, Logits):
            return {"points": [{"flops": None, "accuracy": known.accuracy}]}
        (point,) = baseline_points(game, [(teacher,)], bench.stopwatch)
        return {"points": [{**point, "flops": known.flops}]}


def families(bench: Bench) -> list[ModelClass]:
    """Where a single model may come from: the teacher's family, as deep and half as deep, and the members'.

    Beside a teacher that was not trained here, the members' family at the teacher's depth takes its place.
    """
    config, teacher, members = bench.config, bench.prepared.teacher, bench.prepared.classes[0]
    if isinstance(teacher, nn.Module | Logits):
        teacher = resized(members, widths=config.teacher_widths, blocks=config.teacher_blocks)
    return list(dict.fromkeys([teacher, resized(teacher, blocks=max(1, config.teacher_blocks // 2)), members]))


def resized(model_class: ModelClass, **changes: object) -> ModelClass:
    """The same family in another size: every one is a dataclass of widths and blocks."""
    return dataclasses.replace(model_class, **changes)  # type: ignore[type-var]


def budgets_of(game: Game) -> list[float]:
    """FLOPs of the ensemble's prefixes, if every round takes the first expansion of the cheapest class."""
    features = Features(torch.from_numpy(game.data.test.x[:1]).to(game.device))
    budgets, total = list[float](), 0.0
    for index in range(game.config.rounds):
        trial = game.trials(0, index)[0]
        network = game.build(trial, index)
        total += flops.count(network, features.x, features.read(trial.sources, slice(0, 1))).total
        features.add(index, features.evaluate(network, trial.sources)[1])
        budgets.append(total)
    return budgets
