"""A recipe's teacher: one that it brings, or its own, trained on the labels with cross-entropy or squared error."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from training import early, ranks
from training.boosting import squared_loss
from training.checkpoint import Checkpoint
from training.config import RecipeConfig
from training.data import Data
from training.determinism import derive_seed, seeded
from training.fitting import Fitting, Schedule
from training.networks import LogitsOnly, ModelClass, Normalise, synchronise
from training.pipeline import device_of
from training.precision import autocast, to_device
from training.progress import Reporter
from training.recipes.recipe import Prepared
from training.targets import Logits
from training.tasks import Regression
from training.views import Views


def prepare_teacher(
    prepared: Prepared, config: RecipeConfig, checkpoint: Checkpoint, reporter: Reporter
) -> nn.Module | Logits:
    """The teacher that the recipe brings; or a network of its class, trained here and kept in the checkpoint."""
    if isinstance(prepared.teacher, nn.Module | Logits):
        return prepared.teacher
    network = _untrained(prepared.teacher, prepared.data, config)
    return train_teacher(network, prepared.data, config, device_of(config), checkpoint, reporter)


def _untrained(model_class: ModelClass, data: Data, config: RecipeConfig) -> LogitsOnly:
    normalise, labels = Normalise.of(data.train.x, sequences=data.sequences), len(data.classes)
    seed = derive_seed(config.seed, "teacher", "weights")
    return LogitsOnly(seeded(seed, lambda: model_class.build(normalise, data.input_shape, labels)), model_class.name)


def train_teacher(
    network: LogitsOnly,
    data: Data,
    config: RecipeConfig,
    device: torch.device,
    checkpoint: Checkpoint,
    reporter: Reporter,
) -> LogitsOnly:
    """Fit `network` on the training part; it comes back in eval mode, without gradients, giving logits or values.

    Members that are judged after every step learn from a teacher that was.

    Goes on from the checkpoint's part ``teacher`` where there is one, and leaves its final state there.
    """
    synchronise(to_device(network, device, config.precision))
    views = Views(torch.from_numpy(ranks.share(data.train.x)).to(device), config.augment)
    units = _units(data, device) if data.task == "regression" else None
    y = ranks.share(_labels(data, units, device))

    def loss(batch: Tensor) -> Tensor:
        with autocast(device, config.precision):
            outputs = early.answer(config.judged_steps, network, views[batch])
        found, wanted = early.by_step(outputs.float(), y[batch])
        return (functional.cross_entropy if units is None else squared_loss)(found, wanted)

    schedule = Schedule(
        epochs=config.teacher_epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
    )
    fitting = Fitting(network, loss, len(y), schedule, derive_seed(config.seed, "teacher", "order"), views=views)
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
