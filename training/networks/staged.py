"""What all families share: raw input, normalisation, stages with taps, head.

Shape suffixes: N samples, L labels; an activation of a stage is (N, C, H, W), (N, C) or, of a sequence, (N, T, C).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from training.connections import Connection, Kind

CONSTANT = 1e-7
"""Spread, as a share of the largest absolute value, that is no more than float32's rounding; in any unit."""


class Normalise(nn.Module):
    """Raw samples to zero mean and unit variance; inside the network, so that the wire carries raw inputs."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    @classmethod
    def of(cls, x: npt.NDArray[Any], *, sequences: bool = False) -> Self:
        """Statistics of training samples (N, *shape); what is constant keeps its scale.

        For each feature of a vector or of `sequences` (T, F), for each channel of an image (C, H, W), one for all of
        an image (H, W).
        """
        image = (0, 1) if sequences else (0, 1, 2)
        axes = {2: (0,), 3: image}.get(x.ndim, (0, *range(2, x.ndim)))
        mean = x.mean(axis=axes, keepdims=True, dtype=np.float64)[0]
        std = x.std(axis=axes, keepdims=True, dtype=np.float64)[0]
        peak = np.maximum(*(abs(end(axis=axes, keepdims=True)[0].astype(np.float64)) for end in (x.min, x.max)))
        scale = 1 / np.where(std <= np.maximum(CONSTANT * peak, np.finfo(np.float32).tiny), 1, std)
        return cls(torch.from_numpy(mean).float(), torch.from_numpy(scale).float())

    def forward(self, x: Tensor) -> Tensor:
        """(N, *shape) of any dtype to float32."""
        return (x.to(torch.float32) - self.mean) * self.scale


class Stage(nn.Module):
    """A transition to the stage's shape, the taps of earlier members, then a block that works on their sum."""

    def __init__(self, transition: nn.Module, connection: Connection | None, block: nn.Module) -> None:
        super().__init__()
        self.transition, self.connection, self.block = transition, connection, block

    def forward(self, x: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """The tap of this stage."""
        tap: Tensor = self.block(self.enter(x, earlier))
        return tap

    def enter(self, x: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """What the block works on."""
        own: Tensor = self.transition(x)
        if self.connection is not None:
            own = self.connection(own, earlier)
        return own


class StagedNetwork(nn.Module):
    """A network whose stages can be read by, and can read, others of its shape."""

    def __init__(self, normalise: Normalise, reshape: nn.Module, stages: Sequence[Stage], head: nn.Sequential) -> None:
        super().__init__()
        self.normalise, self.reshape, self.head = normalise, reshape, head
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor, earlier: Sequence[Sequence[Tensor]] = ()) -> tuple[Tensor, list[Tensor]]:
        """Logits (N, L) and one tap for each stage.

        Args:
            x: raw samples (N, *shape).
            earlier: for each stage the taps of the members it reads; empty when it reads none.
        """
        hidden = self.reshape(self.normalise(x))
        taps: list[Tensor] = []
        for position, stage in enumerate(self.stages):
            hidden = stage(hidden, earlier[position] if earlier else ())
            taps.append(hidden)
        return self.head(hidden), taps

    def finish(self) -> Self:
        """After training: centre the logits by folding that into the last layer, then :meth:`freeze`.

        Once only: centring centred weights again would move their last bits.
        """
        last = self._last_layer()
        with torch.no_grad():
            last.weight.sub_(last.weight.mean(dim=0, keepdim=True))
            last.bias.sub_(last.bias.mean())
        return self.freeze()

    def rescale(self, shift_L: Tensor, scale_L: Tensor) -> Self:
        """Fold ``shift + scale * outputs`` into the last layer."""
        last = self._last_layer()
        with torch.no_grad():
            last.weight.mul_(scale_L.to(last.weight.device)[:, None])
            last.bias.mul_(scale_L.to(last.bias.device)).add_(shift_L.to(last.bias.device))
        return self

    def _last_layer(self) -> nn.Linear:
        last = self.head[-1]
        if not isinstance(last, nn.Linear):
            raise TypeError("the head of a member must end in nn.Linear")
        return last

    def freeze(self) -> Self:
        """Fix every value: eval mode, no gradients left and none to come."""
        self.zero_grad(set_to_none=True)
        return self.eval().requires_grad_(False)


class LogitsOnly(nn.Module):
    """A staged network as a plain classifier, for use as a teacher."""

    def __init__(self, network: StagedNetwork, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, L) of raw samples."""
        logits: Tensor = self.network(x)[0]
        return logits


class ModelClass(Protocol):
    """A class F_m to search members in. All classes of a run must have stages of equal shape to be connected."""

    @property
    def name(self) -> str:
        """Short and telling: it goes into the manifest."""

    def build(
        self, normalise: Normalise, shape: tuple[int, ...], labels: int, kind: Kind = "none", sources: int = 0
    ) -> StagedNetwork:
        """A randomly initialised network that reads `sources` earlier members through connections of `kind`."""

    def scaled(self, factor: float) -> ModelClass:
        """The same class with all widths multiplied, for single models of another cost."""


def scale_widths(widths: Sequence[int], factor: float) -> tuple[int, ...]:
    """Widths times `factor`, rounded, at least one."""
    return tuple(max(1, round(width * factor)) for width in widths)
