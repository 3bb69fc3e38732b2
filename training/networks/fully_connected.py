"""Fully connected networks for vectors: one hidden width a stage."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.connections import Kind, connect
from training.networks.staged import Normalise, Stage, StagedNetwork, scale_widths


class Block(nn.Module):
    """``relu(z + norm(linear(z)))``, width kept."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width, bias=False)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, z: Tensor) -> Tensor:
        """(N, C) to the same shape."""
        return torch.relu(z + self.norm(self.linear(z)))


@dataclass(frozen=True, kw_only=True)
class FullyConnected:
    """For samples of any shape, which are flattened."""

    widths: tuple[int, ...]
    """Hidden units of each stage."""
    blocks: int = 1
    """Blocks in each stage."""

    @property
    def name(self) -> str:
        """Such as fc-16, or fc-64-64x2 with two blocks in each stage."""
        return "-".join(["fc", *map(str, self.widths)]) + (f"x{self.blocks}" if self.blocks > 1 else "")

    def build(
        self, normalise: Normalise, shape: tuple[int, ...], labels: int, kind: Kind = "none", sources: int = 0
    ) -> StagedNetwork:
        """See :class:`training.networks.ModelClass`."""
        stages: list[Stage] = []
        before = math.prod(shape)
        for width in self.widths:
            transition = nn.Sequential(nn.Linear(before, width, bias=False), nn.BatchNorm1d(width), nn.ReLU())
            connection = connect(kind, sources, width, spatial=False)
            stages.append(Stage(transition, connection, nn.Sequential(*(Block(width) for _ in range(self.blocks)))))
            before = width
        return StagedNetwork(normalise, nn.Flatten(), stages, nn.Sequential(nn.Linear(before, labels)))

    def scaled(self, factor: float) -> FullyConnected:
        """See :class:`training.networks.ModelClass`."""
        return dataclasses.replace(self, widths=scale_widths(self.widths, factor))
