"""Densely connected networks for images (Huang et al., 2017): within a stage every layer reads all before it.

The 1x1 convolution that compresses a dense block's many channels is its last layer here, not the first of the next
stage: so a stage ends as wide as it began, and its tap can be added to the input of a later member's.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.connections import Kind, connect
from training.errors import BadConfig
from training.networks.staged import Normalise, Stage, StagedNetwork, scale_widths


class DenseBlock(nn.Module):
    """`layers` convolutions, each of `growth` channels and reading all before it, compressed to the given width."""

    def __init__(self, width: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _convolution(width + position * growth, growth, kernel=3) for position in range(layers)
        )
        self.compress = _convolution(width + layers * growth, width, kernel=1)

    def forward(self, z: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        for layer in self.layers:
            z = torch.cat([z, layer(z)], dim=1)
        compressed: Tensor = self.compress(z)
        return compressed


@dataclass(frozen=True, kw_only=True)
class DenseNet:
    """For images (C, H, W): each stage after the first halves the resolution."""

    widths: tuple[int, ...]
    """Channels at the beginning and at the end of each stage."""
    blocks: int = 2
    """Layers in each stage's dense block."""
    growth: int = 8
    """Channels of each layer."""

    @property
    def name(self) -> str:
        """Such as densenet-16-32x2-k8: two layers in each stage, of eight channels."""
        return "-".join(["densenet", *map(str, self.widths)]) + f"x{self.blocks}-k{self.growth}"

    def build(
        self, normalise: Normalise, shape: tuple[int, ...], labels: int, kind: Kind = "none", sources: int = 0
    ) -> StagedNetwork:
        """See :class:`training.networks.ModelClass`."""
        if len(shape) != 3:
            raise BadConfig(f"A densely connected network takes images (C, H, W), not samples of shape {list(shape)}.")
        stages: list[Stage] = []
        before = shape[0]
        for position, width in enumerate(self.widths):
            transition = (
                nn.Conv2d(before, width, kernel_size=3, padding=1, bias=False)
                if position == 0
                else nn.Sequential(_convolution(before, width, kernel=1), nn.AvgPool2d(2, ceil_mode=True))
            )
            connection = connect(kind, sources, width, spatial=True)
            stages.append(Stage(transition, connection, DenseBlock(width, self.growth, self.blocks)))
            before = width
        norm = nn.Sequential(nn.BatchNorm2d(before), nn.ReLU())
        head = nn.Sequential(norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, labels))
        return StagedNetwork(normalise, nn.Identity(), stages, head)

    def scaled(self, factor: float) -> DenseNet:
        """See :class:`training.networks.ModelClass`."""
        (growth,) = scale_widths([self.growth], factor)
        return dataclasses.replace(self, widths=scale_widths(self.widths, factor), growth=growth)


def _convolution(before: int, width: int, kernel: int) -> nn.Sequential:
    """Normalised and rectified first: what is concatenated is read by layers with statistics of their own."""
    convolution = nn.Conv2d(before, width, kernel_size=kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(nn.BatchNorm2d(before), nn.ReLU(), convolution)
