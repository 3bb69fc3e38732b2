"""BatchEnsemble (Wen et al., 2020): members that share every weight matrix, scaled by a rank-one matrix of their own.

``W_m = W * (r_m s_m^T)``: what a member adds to memory is two vectors a layer, and its own normalisation.
What it adds to the time of an answer is a whole evaluation.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from training.baselines.answer import Answer
from training.baselines.single import build, fit
from training.determinism import derive_seed, seeded
from training.game import Game
from training.networks import LogitsOnly, ModelClass, StagedNetwork

Layer = nn.Linear | nn.Conv2d


DEVIATION = 0.5
"""Of r and s from 1 at the start: what the authors' code has for CIFAR.

The random signs of their paper ask one W to do for features and for their negatives, which networks of a few channels
cannot: `reproduce compare-ensembles` gave their first answer on cube 87.32 %, where it is 94.45 now.
"""


class RankOne(nn.Module):
    """``W * (r s^T)`` on a weight (out, in, ...); r and s start at normal values around 1."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.r, self.s = (nn.Parameter(1 + DEVIATION * torch.randn(size)) for size in weight.shape[:2])

    def forward(self, weight: Tensor) -> Tensor:
        """The member's own weight."""
        rest = (1,) * (weight.ndim - 2)
        return weight * self.r.view(-1, 1, *rest) * self.s.view(1, -1, *rest)


def batch_ensemble(game: Game, model_class: ModelClass, members: int) -> list[Answer]:
    """The first k of `members` networks that share their weights, for each k; trained together, each on its loss."""
    shared = build(game, model_class, "BatchEnsemble")
    seed = derive_seed(game.config.seed, "BatchEnsemble", "vectors")
    networks = seeded(seed, lambda: nn.ModuleList(_member(shared) for _ in range(members))).to(game.device)
    fit(
        game,
        networks,
        lambda x: [network(x)[0] for network in networks],
        ("BatchEnsemble",),
        f"BatchEnsemble of {members}",
    )
    own = tuple(LogitsOnly(game.task.finish(_materialise(network)), model_class.name) for network in networks)
    return [own[:k] for k in range(1, members + 1)]


def _member(shared: StagedNetwork) -> StagedNetwork:
    """A copy of `shared` that still has its weights, each seen through a rank-one matrix of its own."""
    member = copy.deepcopy(shared)
    for original, layer in zip(_layers(shared), _layers(member), strict=True):
        layer.weight = original.weight
        parametrize.register_parametrization(layer, "weight", RankOne(original.weight))
    return member


def _materialise(member: nn.Module) -> StagedNetwork:
    """A plain network with the member's own weights; a copy first, because the shared ones must stay as they are."""
    plain: StagedNetwork = copy.deepcopy(member)  # type: ignore[assignment]
    for layer in _layers(plain):
        parametrize.remove_parametrizations(layer, "weight")
    return plain


def _layers(network: nn.Module) -> list[Layer]:
    return [module for module in network.modules() if isinstance(module, Layer)]
