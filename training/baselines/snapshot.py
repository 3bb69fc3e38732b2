"""Snapshot ensemble (Huang et al., 2017): one network, whose rate rises and falls again for every member."""

from __future__ import annotations

import copy

from training.baselines.answer import Answer
from training.baselines.single import build, fit
from training.game import Game
from training.networks import LogitsOnly, ModelClass


def snapshot(game: Game, model_class: ModelClass, members: int) -> list[Answer]:
    """The last k of `members` snapshots of one network, for each k: the latest is the best, so it answers first.

    Each cycle is a whole schedule of a member, with a new state of the optimiser, from the weights of the one before.
    """
    network = build(game, model_class, "snapshot")
    snapshots = list[LogitsOnly]()
    for k in range(1, members + 1):
        network.requires_grad_(True)
        fit(game, network, lambda x: [network(x)[0]], ("snapshot", k), f"snapshot {k} of {members}")
        snapshots.insert(0, LogitsOnly(game.task.finish(copy.deepcopy(network)), model_class.name))
    return [tuple(snapshots[:k]) for k in range(1, members + 1)]
