"""A multi-exit network: one chain of blocks with a classifier after each, all trained together.

It is what a user would build who can design the network anew; B-DISTIL starts from any class of small networks.
"""

from __future__ import annotations

import copy
import dataclasses

from torch import Tensor, nn

from training.baselines.answer import Answer
from training.baselines.single import build, fit, flops_of, widest
from training.errors import BadConfig
from training.game import Game
from training.networks import ModelClass, StagedNetwork


class MultiExit(nn.Module):
    """The stages of a staged network, the last of them with an exit after each of its blocks."""

    def __init__(self, network: StagedNetwork) -> None:
        super().__init__()
        *earlier, last = network.stages
        for stage in earlier:
            stage.block = _blocks(stage)[:1]  # depth goes where the exits are, so that the first of them is cheap
        self.blocks = nn.ModuleList(_blocks(last))
        self.heads = nn.ModuleList(copy.deepcopy(network.head) for _ in self.blocks)
        last.block, network.head = nn.Identity(), nn.Sequential(nn.Identity())
        self.trunk = network

    def forward(self, x: Tensor) -> list[Tensor]:
        """Logits (N, L) of every exit."""
        hidden, logits = self.trunk(x)[1][-1], list[Tensor]()
        for block, head in zip(self.blocks, self.heads, strict=True):
            hidden = block(hidden)
            logits.append(head(hidden))
        return logits


class Exit(nn.Module):
    """What is run for the answer of one exit: the chain up to it, and its classifier alone."""

    def __init__(self, network: MultiExit, position: int) -> None:
        super().__init__()
        self.trunk, self.head = network.trunk, network.heads[position]
        self.blocks = nn.Sequential(*list(network.blocks)[: position + 1])

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, L) of raw samples."""
        logits: Tensor = self.head(self.blocks(self.trunk(x)[1][-1]))
        return logits


def _blocks(stage: nn.Module) -> nn.Sequential:
    if not isinstance(stage.block, nn.Sequential):
        raise BadConfig(f"A multi-exit network needs stages made of blocks, not of one {type(stage.block).__name__}.")
    return stage.block


def multi_exit(game: Game, model_class: ModelClass, exits: int, budget: float) -> list[Answer]:
    """A network of the class with `exits` exits, as wide as the whole of it costs at most `budget` FLOPs."""
    deep = dataclasses.replace(model_class, blocks=exits)  # type: ignore[type-var]
    factor = widest(lambda factor: flops_of(game, _last(game, deep.scaled(factor))), budget)
    network = MultiExit(build(game, deep.scaled(factor), "multi-exit"))
    fit(game, network, network, ("multi-exit",), f"multi-exit network of {exits}")
    network.eval().requires_grad_(False)
    return [(Exit(network, position),) for position in range(exits)]


def _last(game: Game, model_class: ModelClass) -> Exit:
    network = MultiExit(build(game, model_class, "multi-exit"))
    return Exit(network, len(network.blocks) - 1)
