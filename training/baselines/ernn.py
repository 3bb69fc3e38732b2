"""E-RNN (Dennis et al., 2018): one recurrent network of its own, trained on labels after every step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.baselines.single import build, schedule
from training.determinism import derive_seed
from training.early import by_step, steps_of
from training.fitting import Fitting
from training.game import Game
from training.networks import Recurrent, RecurrentNetwork


def ernn(game: Game, model_class: Recurrent) -> RecurrentNetwork:
    """A network of the class under the early-classification loss: cross-entropy, mean over batch and steps.

    It gets the epochs that a member of the ensemble sees in all; it has no teacher.
    """
    network = build(game, model_class, "E-RNN", 1)
    if not isinstance(network, RecurrentNetwork):
        raise TypeError("E-RNN needs a recurrent network")
    x = torch.from_numpy(game.data.train.x).to(game.device)
    y = torch.from_numpy(game.data.train.y.astype(np.int64)).to(game.device)

    def loss(batch: Tensor) -> Tensor:
        logits_NL, labels_N = by_step(steps_of(network, network(x[batch])[1]), y[batch])
        return functional.cross_entropy(logits_NL, labels_N)

    seed = derive_seed(game.config.seed, "baseline order", "E-RNN")
    Fitting(network, loss, len(x), schedule(game), seed).run(game.reporter, f"E-RNN {model_class.name}")
    return network.finish()
