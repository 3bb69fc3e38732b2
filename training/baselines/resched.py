"""RESCHED (section 5.3): members that know nothing of each other, averaged. The paper expects it below the ensemble."""

from __future__ import annotations

from training.baselines.answer import Answer
from training.baselines.single import distil_single
from training.game import Game
from training.networks import ModelClass


def resched(game: Game, model_class: ModelClass, members: int) -> list[Answer]:
    """The first k of `members` independently distilled networks, for each k."""
    networks = tuple(distil_single(game, model_class, "RESCHED", k, members) for k in range(1, members + 1))
    return [networks[:k] for k in range(1, members + 1)]
