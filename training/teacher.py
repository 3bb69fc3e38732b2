"""Training a recipe's own teacher on the labels: plain cross-entropy, or squared error on standardised values."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.boosting import squared_loss
from training.checkpoint import Checkpoint
from training.config import RecipeConfig
from training.data import Data
from training.determinism import derive_seed
from training.fitting import Fitting, Schedule
from training.networks import LogitsOnly
from training.progress import Reporter
from training.tasks import Regression


def train_teacher(
    network: LogitsOnly,
    data: Data,
    config: RecipeConfig,
    device: torch.device,
    checkpoint: Checkpoint,
    reporter: Reporter,
) -> LogitsOnly:
    """Fit `network` on the training part; it comes back in eval mode, without gradients, giving logits or values.

    Goes on from the checkpoint's part ``teacher`` where there is one, and leaves its final state there.
    """
    network.to(device)
    x = torch.from_numpy(data.train.x).to(device)
    units = _units(data, device) if data.task == "regression" else None
    y = _labels(data, units, device)

    def loss(batch: Tensor) -> Tensor:
        return (functional.cross_entropy if units is None else squared_loss)(network(x[batch]), y[batch])

    schedule = Schedule(
        epochs=config.teacher_epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
    )
    fitting = Fitting(network, loss, len(y), schedule, derive_seed(config.seed, "teacher", "order"))
    saved = checkpoint.load("teacher")
    if saved:
        fitting.restore(saved)
    fitting.run(reporter, "teacher", lambda: checkpoint.save("teacher", fitting.state()))
    if units is not None:
        network.network.rescale(units.shift_L, units.scale_L)
    return network.eval().requires_grad_(False)


def _units(data: Data, device: torch.device) -> Regression:
    return Regression.of(torch.from_numpy(data.train.y.astype(np.float32)).to(device))


def _labels(data: Data, units: Regression | None, device: torch.device) -> Tensor:
    if units is None:
        return torch.from_numpy(data.train.y.astype(np.int64)).to(device)
    return units.standardise(torch.from_numpy(data.train.y.astype(np.float32)).to(device))
