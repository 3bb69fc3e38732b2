"""What classification and regression do differently; all of the game besides is the same for both.

Shape suffixes: N samples, L labels: classes of a classifier, outputs of a regression. The game (residuals, weights,
Definition 1, the barrier) is played on centred logits, or on values standardised by the teacher's mean and spread.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from training import boosting
from training.networks import StagedNetwork

CONSTANT = 1e-6
"""Spread, as a share of the largest absolute value, that is no more than the rounding of a network; in any unit."""


class Task(Protocol):
    """How outputs are compared, and how the game's outputs relate to those that are served."""

    def standardise(self, teacher_NL: Tensor) -> Tensor:
        """The teacher's outputs as the game sees them."""

    def gauge(self, outputs_NL: Tensor) -> Tensor:
        """A member's outputs without what the answer does not depend on."""

    def labels(self, y_N: Tensor) -> Tensor:
        """The data's labels as :meth:`loss` takes them."""

    def loss(self, outputs_NL: Tensor, teacher_NL: Tensor, y_N: Tensor) -> Tensor:
        """L_task of Eq. 6: towards the teacher, and as much of the labels as the settings mix in; a scalar."""

    def restore(self, outputs_NL: Tensor) -> Tensor:
        """The game's outputs as they are served."""

    def finish(self, network: StagedNetwork) -> StagedNetwork:
        """A trained network, gauged and frozen."""

    def served(self, network: StagedNetwork) -> StagedNetwork:
        """The network whose outputs are those that are served."""


@dataclass(frozen=True, slots=True)
class Classification:
    """Outputs are logits: softmax does not see a shift of a sample's logits, so they are centred."""

    temperature: float
    label_weight: float = 0.0

    def standardise(self, teacher_NL: Tensor) -> Tensor:
        """Centred."""
        return boosting.centre(teacher_NL)

    def gauge(self, outputs_NL: Tensor) -> Tensor:
        """Centred."""
        return boosting.centre(outputs_NL)

    def labels(self, y_N: Tensor) -> Tensor:
        """Indices of classes."""
        return y_N.long()

    def loss(self, outputs_NL: Tensor, teacher_NL: Tensor, y_N: Tensor) -> Tensor:
        """Distillation at the temperature."""
        distilled = boosting.distillation_loss(outputs_NL, teacher_NL, self.temperature)
        return distilled + boosting.label_loss(outputs_NL, y_N, self.label_weight)

    def restore(self, outputs_NL: Tensor) -> Tensor:
        """As they are."""
        return outputs_NL

    def finish(self, network: StagedNetwork) -> StagedNetwork:
        """The centring goes into the last layer."""
        return network.finish()

    def served(self, network: StagedNetwork) -> StagedNetwork:
        """As it is."""
        return network


@dataclass(frozen=True, slots=True)
class Regression:
    """Outputs are values, of which a shift is no matter of gauge; served as ``shift + scale * standardised``."""

    shift_L: Tensor
    scale_L: Tensor
    label_weight: float = 0.0

    @classmethod
    def of(cls, values_NL: Tensor, label_weight: float = 0.0) -> Self:
        """Mean and standard deviation of each output; an output that is constant keeps its scale."""
        deviation_L = values_NL.double().std(dim=0, correction=0)
        rounding_L = CONSTANT * values_NL.double().abs().amax(dim=0)
        scale_L = torch.where(deviation_L <= rounding_L.clamp(min=torch.finfo(torch.float32).tiny), 1.0, deviation_L)
        return cls(values_NL.double().mean(dim=0).float(), scale_L.float(), label_weight)

    def standardise(self, teacher_NL: Tensor) -> Tensor:
        """In standard deviations from the mean."""
        return (teacher_NL - self.shift_L) / self.scale_L

    def gauge(self, outputs_NL: Tensor) -> Tensor:
        """As they are: a shift changes the answer."""
        return outputs_NL

    def labels(self, y_N: Tensor) -> Tensor:
        """Standardised as the teacher's values are, (N, L)."""
        return self.standardise(y_N.float().reshape(len(y_N), -1))

    def loss(self, outputs_NL: Tensor, teacher_NL: Tensor, y_N: Tensor) -> Tensor:
        """Mean squared difference."""
        distilled = boosting.squared_loss(outputs_NL, teacher_NL)
        if not self.label_weight:
            return distilled
        return distilled + self.label_weight * boosting.squared_loss(outputs_NL, y_N)

    def restore(self, outputs_NL: Tensor) -> Tensor:
        """In the unit of the labels."""
        return self.shift_L + self.scale_L * outputs_NL

    def finish(self, network: StagedNetwork) -> StagedNetwork:
        """Nothing to gauge."""
        return network.freeze()

    def served(self, network: StagedNetwork) -> StagedNetwork:
        """A copy with scale and shift in the last layer: the mean of members in units is the mean, in units."""
        return copy.deepcopy(network).rescale(self.shift_L, self.scale_L)
