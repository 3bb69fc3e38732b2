"""Stochastic gradient descent on one network, an epoch at a time, resumable after each to the bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.progress import Reporter

WARM_UP = 0.1
"""Share of the steps in which the rate rises linearly to its peak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and how fast."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float


class Fitting:
    """AdamW on `network` under a loss of sample indices.

    Every epoch visits every index exactly once, in an order drawn from the fitting's own generator. Batches are
    of nearly equal size, because a last batch of one sample has no batch statistics.
    """

    def __init__(
        self, network: nn.Module, loss: Callable[[Tensor], Tensor], samples: int, schedule: Schedule, seed: int
    ) -> None:
        self.network, self.loss, self.samples, self.schedule = network, loss, samples, schedule
        self.epochs_done = 0
        self._batches = math.ceil(samples / schedule.batch_size)
        self._optimizer = torch.optim.AdamW(
            network.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay, fused=True
        )
        self._generator = torch.Generator().manual_seed(seed)

    def run_epoch(self) -> float:
        """One pass; returns the mean loss over its batches."""
        self.network.train()
        total = 0.0
        for number, batch in enumerate(self.order()):
            self._set_rate(self.epochs_done * self._batches + number)
            self._optimizer.zero_grad(set_to_none=True)
            loss = self.loss(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            total += float(loss.detach())
        self.epochs_done += 1
        return total / self._batches

    def order(self) -> tuple[Tensor, ...]:
        """The batches of sample indices of the next epoch."""
        return torch.tensor_split(torch.randperm(self.samples, generator=self._generator), self._batches)

    def run(self, reporter: Reporter, phase: str, after_epoch: Callable[[], None] = lambda: None) -> None:
        """The epochs that are left, each followed by `after_epoch` (where a checkpoint is written)."""
        reporter.begin(phase, self.schedule.epochs)
        reporter.advance(self.epochs_done)
        while self.epochs_done < self.schedule.epochs:
            loss = self.run_epoch()
            after_epoch()
            reporter.advance(self.epochs_done, loss)

    def state(self) -> dict[str, Any]:
        """Everything that the epochs to come depend on."""
        return {
            "epochs_done": self.epochs_done,
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.epochs_done = state["epochs_done"]
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])

    def _set_rate(self, step: int) -> None:
        steps = self._batches * self.schedule.epochs
        warm = max(1, round(WARM_UP * steps))
        progress = (step - warm) / max(1, steps - warm)
        factor = (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * progress))
        for group in self._optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate * factor
