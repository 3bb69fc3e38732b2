"""Stochastic gradient descent on one network, an epoch at a time, resumable after each to the bit.

Processes that share the samples take the same steps as one process alone: the same batches, each process the samples
that it owns, and the sum of what they found.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training import ranks
from training.progress import Reporter
from training.views import Views

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
    of nearly equal size, and one is rather larger than asked for than of one sample, which has no batch statistics.

    Args:
        network: what is fitted, on its device.
        loss: a mean over the samples of which it is given the indices, as a tensor on that device; the indices
            count this process's own samples.
        samples: how many samples this process owns.
        schedule: how long and how fast.
        seed: of the order and the views.
        views: are drawn anew at the start of every epoch.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[[Tensor], Tensor],
        samples: int,
        schedule: Schedule,
        seed: int,
        *,
        views: Views | None = None,
    ) -> None:
        self.network, self.loss, self.schedule, self.views = network, loss, schedule, views
        self.samples = ranks.count(samples)
        self.epochs_done = 0
        self._batches = min(math.ceil(self.samples / schedule.batch_size), max(1, self.samples // 2))
        self._device = next(network.parameters()).device
        self._optimizer = torch.optim.AdamW(
            network.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay, fused=True
        )
        self._generator = torch.Generator().manual_seed(seed)

    def run_epoch(self) -> float:
        """One pass; returns the mean loss over its batches."""
        self.network.train()
        total = torch.zeros((), dtype=torch.float64, device=self._device)  # read once an epoch: reading waits for a GPU
        batches = self.order()
        if self.views is not None:
            self.views.redraw(self._generator)
        for number, batch in enumerate(batches):
            self._set_rate(self.epochs_done * self._batches + number)
            self._optimizer.zero_grad(set_to_none=True)
            loss = self._share_of_loss(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            ranks.sum_gradients(self.network.parameters())
            self._optimizer.step()
            total += loss.detach().nan_to_num() if ranks.size() > 1 else loss.detach()
        self.epochs_done += 1
        return float(ranks.total(total)) / self._batches

    def _share_of_loss(self, batch: Tensor) -> Tensor:
        """What this process's samples contribute to the mean loss over `batch`.

        One that owns none of them computes all the same, on no sample: the others wait for it in every batch statistic.
        Its loss is then not a number, its gradients are zeros.
        """
        mine = ranks.own(batch)
        loss = self.loss(mine.to(self._device))
        return loss if ranks.size() == 1 else loss * (len(mine) / len(batch))

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
