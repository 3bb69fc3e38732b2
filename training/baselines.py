"""What the ensemble is held against at the same cost (section 5.3).

RESCHED: members that know nothing of each other, averaged; the paper expects it below the ensemble. NO-RESCHED: for
each budget a single model distilled for exactly that budget; the paper expects it above. Every network
gets the epochs, loss and schedule of one member, without barrier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training import flops
from training.determinism import derive_seed, seeded
from training.ensemble import Features
from training.evaluate import rmse
from training.find_wl import schedule_of
from training.fitting import Fitting
from training.game import Game
from training.networks import ModelClass, StagedNetwork

HALVINGS = 12
"""Steps of the search for the width that a budget pays for."""


@dataclass(frozen=True, slots=True)
class Point:
    """Cost in FLOPs per sample, and what it buys on the test part."""

    flops: float
    score: float
    """Accuracy; of a regression the RMSE in the unit of the labels."""


def resched(game: Game, model_class: ModelClass, members: int) -> list[Point]:
    """The average of the first k of `members` independent networks, for each k."""
    total_NL, points = torch.zeros_like(game.target.test_NL), list[Point]()
    cost = cost_of(game, model_class)
    for k in range(1, members + 1):
        network = _distil_single(game, model_class, "RESCHED", k, members)
        total_NL = total_NL + _test_logits(game, network)
        points.append(Point(cost * k, score(game, total_NL / k)))
    return points


def no_resched(game: Game, model_class: ModelClass, budgets: Sequence[float]) -> list[Point]:
    """For each budget in FLOPs the widest network of the class that it pays for."""
    points = list[Point]()
    for k, budget in enumerate(budgets, start=1):
        scaled = within(game, model_class, budget)
        network = _distil_single(game, scaled, "NO-RESCHED", k, len(budgets))
        points.append(Point(cost_of(game, scaled), score(game, _test_logits(game, network))))
    return points


def within(game: Game, model_class: ModelClass, budget: float) -> ModelClass:
    """`model_class` scaled to the largest widths that cost at most `budget`, or to its smallest."""
    low, high = 0.0, 1.0
    while cost_of(game, model_class.scaled(high)) <= budget:
        low, high = high, 2 * high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        affordable = cost_of(game, model_class.scaled(middle)) <= budget
        low, high = (middle, high) if affordable else (low, middle)
    return model_class.scaled(low)


def cost_of(game: Game, model_class: ModelClass) -> float:
    """FLOPs per sample of an unconnected network of the class."""
    network = _build(game, model_class, 0)
    return flops.count(network, torch.from_numpy(game.data.test.x[:1]).to(game.device)).total


def score(game: Game, outputs_NL: Tensor) -> float:
    """Accuracy, or RMSE of a regression, on the test part; of outputs as the game sees them."""
    answer_NL, y = game.task.restore(outputs_NL).cpu().numpy(), game.data.test.y
    if game.data.task == "regression":
        return rmse(answer_NL, y)
    return float((answer_NL.argmax(axis=1) == y).mean())


def _distil_single(game: Game, model_class: ModelClass, name: str, k: int, of: int) -> StagedNetwork:
    """Plain distillation of one unconnected network."""
    network = _build(game, model_class, derive_seed(game.config.seed, name, "weights", k))
    x = torch.from_numpy(game.data.train.x).to(game.device)

    def loss(batch: Tensor) -> Tensor:
        logits_NL, _ = network(x[batch])
        return game.task.loss(logits_NL, game.target.train_NL[batch])

    seed = derive_seed(game.config.seed, name, "order", k)
    Fitting(network, loss, len(x), schedule_of(game.config), seed).run(game.reporter, f"{name} {k} of {of}")
    return game.task.finish(network)


def _build(game: Game, model_class: ModelClass, seed: int) -> StagedNetwork:
    shape, labels = game.data.input_shape, len(game.data.classes)
    return seeded(seed, lambda: model_class.build(game.normalise, shape, labels)).to(game.device)


def _test_logits(game: Game, network: StagedNetwork) -> Tensor:
    return Features(torch.from_numpy(game.data.test.x).to(game.device)).evaluate(network, ())[0]
