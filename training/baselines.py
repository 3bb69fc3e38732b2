"""What the ensemble is held against at the same cost (section 5.3).

RESCHED: members that know nothing of each other, averaged; the paper expects it below the ensemble. NO-RESCHED: for
each budget a single model distilled for exactly that budget; the paper expects it above. Every network
gets the epochs, loss and schedule of one member, without barrier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training import boosting, flops
from training.determinism import derive_seed, seeded
from training.ensemble import Features
from training.find_wl import schedule_of
from training.fitting import Fitting
from training.game import Game
from training.networks import ModelClass, StagedNetwork, synchronise
from training.precision import to_device

HALVINGS = 12
"""Steps of the search for the width that a budget pays for."""


@dataclass(frozen=True, slots=True)
class Point:
    """Cost in FLOPs per sample, and accuracy on the test part."""

    flops: float
    accuracy: float


def resched(game: Game, model_class: ModelClass, members: int) -> list[Point]:
    """The average of the first k of `members` independent networks, for each k."""
    total_NL, points = torch.zeros_like(game.target.test_NL), list[Point]()
    cost = cost_of(game, model_class)
    for k in range(1, members + 1):
        network = _distil_single(game, model_class, "RESCHED", k, members)
        total_NL = total_NL + _test_logits(game, network)
        points.append(Point(cost * k, accuracy(game, total_NL)))
    return points


def no_resched(game: Game, model_class: ModelClass, budgets: Sequence[float]) -> list[Point]:
    """For each budget in FLOPs the widest network of the class that it pays for."""
    points = list[Point]()
    for k, budget in enumerate(budgets, start=1):
        scaled = within(game, model_class, budget)
        network = _distil_single(game, scaled, "NO-RESCHED", k, len(budgets))
        points.append(Point(cost_of(game, scaled), accuracy(game, _test_logits(game, network))))
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


def accuracy(game: Game, logits_NL: Tensor) -> float:
    """On the test part."""
    return float((logits_NL.argmax(dim=1).cpu().numpy() == game.data.test.y).mean(dtype=np.float64))


def _distil_single(game: Game, model_class: ModelClass, name: str, k: int, of: int) -> StagedNetwork:
    """Plain distillation of one unconnected network."""
    network = _build(game, model_class, derive_seed(game.config.seed, name, "weights", k))
    views = game.views()

    def loss(batch: Tensor) -> Tensor:
        x, teacher_NL = game.look(views, batch)
        with game.autocast():
            logits_NL, _ = network(x)
        return boosting.distillation_loss(logits_NL.float(), teacher_NL, game.config.temperature)

    seed = derive_seed(game.config.seed, name, "order", k)
    fitting = Fitting(network, loss, len(views.x), schedule_of(game.config), seed, views=views)
    fitting.run(game.reporter, f"{name} {k} of {of}")
    return network.finish()


def _build(game: Game, model_class: ModelClass, seed: int) -> StagedNetwork:
    shape, labels = game.data.input_shape, len(game.data.classes)
    network = seeded(seed, lambda: model_class.build(game.normalise, shape, labels))
    return synchronise(to_device(network, game.device))


def _test_logits(game: Game, network: StagedNetwork) -> Tensor:
    return Features(torch.from_numpy(game.data.test.x).to(game.device)).logits(network, ())
