"""An answer as the networks that are run for it, and what it is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training import flops
from training.data import Split
from training.ensemble import BATCH
from training.evaluate import rmse
from training.game import Game

Answer = tuple[nn.Module, ...]
"""Networks from raw samples to logits (N, L), run one after the other; the answer is the mean of their logits."""


@dataclass(frozen=True, slots=True)
class Point:
    """Cost in FLOPs per sample, and what it buys on the test part."""

    flops: float
    score: float
    """Accuracy; of a regression the RMSE in the unit of the labels."""


def measure(game: Game, answers: Sequence[Answer]) -> list[Point]:
    """Cost and test score of each answer; a network that is part of several is run once."""
    sample = torch.from_numpy(game.data.test.x[:1]).to(game.device)
    networks = {id(network): network for answer in answers for network in answer}
    cost = {key: flops.count(network, sample).total for key, network in networks.items()}
    logits = {key: logits_of(game, network, game.data.test) for key, network in networks.items()}
    return [
        Point(
            sum(cost[id(network)] for network in answer),
            score(game, torch.stack([logits[id(network)] for network in answer]).mean(dim=0), game.data.test),
        )
        for answer in answers
    ]


def logits_of(game: Game, network: nn.Module, split: Split) -> Tensor:
    """Logits (N, L) of a network on raw samples, in eval mode, on the CPU."""
    network.eval()
    with torch.no_grad():
        parts = [
            network(torch.from_numpy(split.x[start : start + BATCH]).to(game.device))
            for start in range(0, len(split), BATCH)
        ]
    return torch.cat(parts).cpu()


def score(game: Game, outputs_NL: Tensor, split: Split) -> float:
    """Accuracy, or RMSE of a regression, of outputs on the CPU as the game sees them."""
    if game.data.task == "regression":
        return rmse(game.task.restore(outputs_NL.to(game.device)).cpu().numpy(), split.y)
    return accuracy(outputs_NL, split.y)


def accuracy(logits_NL: Tensor, y: npt.NDArray[np.integer]) -> float:
    """Share of samples whose largest logit is their label's."""
    return float((logits_NL.argmax(dim=1).numpy() == y).mean(dtype=np.float64))
