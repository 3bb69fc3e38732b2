"""What one run plays with: settings, data, model classes, and the constants that the teacher fixes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from training import boosting, ranks
from training.checkpoint import Checkpoint
from training.config import Config
from training.connections import expansions
from training.data import Data
from training.determinism import derive_seed, seeded
from training.ensemble import Ensemble, Features, Recomputed
from training.networks import ModelClass, Normalise, StagedNetwork, synchronise
from training.precision import autocast, to_device
from training.progress import Reporter
from training.targets import Target
from training.tasks import Task
from training.views import Views


@dataclass(frozen=True, slots=True)
class Trial:
    """One entry of Algorithm 2's search: a class, an expansion of it, a random restart."""

    model_class: int
    expansion: int
    sources: tuple[int, ...]
    restart: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Game:
    """What does not change between rounds."""

    config: Config
    data: Data
    classes: tuple[ModelClass, ...]
    target: Target
    teacher_sha256: str
    """See :func:`training.fingerprint.teacher_sha256`."""
    normalise: Normalise
    device: torch.device
    eta: float
    """Step of Eqs. 4 and 5 on logits, after `eta_rule`."""
    B: float
    """Bound of Eq. 6 on the centred logits (or standardised values), fixed from the teacher."""
    checkpoint: Checkpoint
    reporter: Reporter

    @property
    def task(self) -> Task:
        """Classification or regression."""
        return self.target.task

    def empty_ensemble(self) -> Ensemble:
        """An ensemble without members on this game's samples."""
        train, validation = (
            torch.from_numpy(ranks.share(split.x)).to(self.device) for split in (self.data.train, self.data.validation)
        )
        stored = Features(train) if self.config.augment == "none" else Recomputed(train)
        return Ensemble(stored, Features(validation), self.target.train_NL, self.target.validation_NL)

    def views(self) -> Views:
        """The training samples as networks in training see them."""
        return Views(torch.from_numpy(ranks.share(self.data.train.x)).to(self.device), self.config.augment)

    def look(self, views: Views, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Samples of `batch` as they look in this epoch, and the teacher's centred logits on that very view."""
        x = views[batch]
        if views.augmentation == "none":
            return x, self.target.train_NL[batch]
        with self.autocast():
            return x, self.target.on(x)

    def autocast(self) -> AbstractContextManager[None]:
        """Around the networks of a training step, never around what decides about one."""
        return autocast(self.device, self.config.precision)

    def trials(self, model_class: int, index: int) -> list[Trial]:
        """Algorithm 2's loops over one class for member `index`, flattened: expansions, restarts of each."""
        config = self.config
        return [
            Trial(model_class, expansion, sources, restart)
            for expansion, sources in expansions(config.connection, config.first_expansion, config.expansions, index)
            for restart in range(config.max_search)
        ]

    def build(self, trial: Trial, index: int) -> StagedNetwork:
        """A network for member `index` of the trial's class, with initial weights drawn for this trial alone."""
        model_class = self.classes[trial.model_class]
        shape, labels = self.data.input_shape, len(self.data.classes)
        network = seeded(
            self.seed("weights", index, trial),
            lambda: model_class.build(self.normalise, shape, labels, self.config.connection, len(trial.sources)),
        )
        return synchronise(to_device(network, self.device, self.config.precision))

    def seed(self, purpose: str, index: int, trial: Trial) -> int:
        """The seed of one trial for one purpose."""
        return derive_seed(self.config.seed, purpose, index, trial.model_class, trial.expansion, trial.restart)

    def describe(self, trial: Trial) -> str:
        """Such as `conv-8-16, r = 1, restart 0`."""
        return f"{self.classes[trial.model_class].name}, r = {trial.expansion}, restart {trial.restart}"


def bound_of(config: Config, target: Target) -> float:
    """B: the teacher's largest output in the game with room for the members'; 1 for a teacher that is all zero."""
    return config.bound_factor * target.largest or 1.0


def eta_of(config: Config, B: float, samples: int) -> float:
    """The step on logits that `eta_rule` makes of `eta`; residuals within Eq. 6's bound have G = 2B."""
    if config.eta_rule == "scaled":
        return config.eta / B
    if config.eta_rule == "theorem":
        return config.eta * boosting.theorem1_eta(2 * B, samples, config.rounds)
    return config.eta
