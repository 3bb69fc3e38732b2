"""One unconnected network, distilled on its own: what most baselines are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from training import flops
from training.determinism import derive_seed, seeded
from training.find_wl import schedule_of
from training.fitting import Fitting, Schedule
from training.game import Game
from training.networks import LogitsOnly, ModelClass, StagedNetwork, synchronise
from training.precision import to_device

HALVINGS = 12
"""Steps of the search for the width that a budget pays for."""


def schedule(game: Game) -> Schedule:
    """The epochs that a member of the ensemble gets in all, in its round and in refinement, as one schedule."""
    config = game.config
    return dataclasses.replace(schedule_of(config), epochs=config.epochs + config.refine_epochs)


def distil_single(game: Game, model_class: ModelClass, name: str, k: int, of: int) -> LogitsOnly:
    """Plain distillation of a fresh network of the class; `name` and `k` decide its seeds."""
    network = build(game, model_class, name, k)
    fit(game, network, lambda x: [network(x)[0]], (name, k), f"{name} {k} of {of}")
    return LogitsOnly(game.task.finish(network), model_class.name)


def fit(
    game: Game,
    network: nn.Module,
    answers: Callable[[Tensor], list[Tensor]],
    purpose: tuple[str | int, ...],
    phase: str,
) -> None:
    """Train `network` on the mean distillation loss of its `answers`.

    Args:
        game: data, teacher and settings.
        network: whose parameters are trained.
        answers: from raw samples to one or more logits (N, L), each judged on its own.
        purpose: what the order of the samples is drawn for.
        phase: what the reporter is told.
    """
    views = game.views()

    def loss(batch: Tensor) -> Tensor:
        x, teacher_NL = game.look(views, batch)
        with game.autocast():
            answered = answers(x)
        y_N = game.target.train_y_N[batch]
        losses = [game.task.loss(logits_NL.float(), teacher_NL, y_N) for logits_NL in answered]
        return torch.stack(losses).mean()

    seed = derive_seed(game.config.seed, "baseline order", *purpose)
    Fitting(network, loss, len(views.x), schedule(game), seed, views=views).run(game.reporter, phase)


def build(game: Game, model_class: ModelClass, *purpose: str | int) -> StagedNetwork:
    """An unconnected network of the class on the game's device, its weights drawn for `purpose`."""
    shape, labels = game.data.input_shape, len(game.data.classes)
    seed = derive_seed(game.config.seed, "baseline weights", *purpose)
    network = seeded(seed, lambda: model_class.build(game.normalise, shape, labels))
    return synchronise(to_device(network, game.device, game.config.precision))


def cost_of(game: Game, model_class: ModelClass) -> float:
    """FLOPs per sample of an unconnected network of the class."""
    return flops_of(game, build(game, model_class))


def flops_of(game: Game, network: nn.Module) -> float:
    """FLOPs per sample of a network that takes raw samples."""
    return flops.count(network, torch.from_numpy(game.data.test.x[:1]).to(game.device)).total


def widest(cost: Callable[[float], float], budget: float) -> float:
    """The largest factor on widths whose cost is at most `budget`, or 0: then nothing is as cheap as that."""
    low, high = 0.0, 1.0
    while cost(high) <= budget:
        low, high = high, 2 * high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) <= budget else (low, middle)
    return low
