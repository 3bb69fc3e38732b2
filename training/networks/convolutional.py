"""Small convolutional networks for images: one resolution a stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.connections import Kind, connect
from training.errors import BadConfig
from training.networks.staged import Normalise, Stage, StagedNetwork, scale_widths


class Block(nn.Module):
    """``relu(z + norm(conv(z)))``: 3x3, shape kept."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, z: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return torch.relu(z + self.norm(self.convolution(z)))


@dataclass(frozen=True, kw_only=True)
class Convolutional:
    """For samples (H, W) or (C, H, W): each stage after the first halves the resolution."""

    widths: tuple[int, ...]
    """Channels of each stage."""
    blocks: int = 1
    """Blocks in each stage."""

    @property
    def name(self) -> str:
        """Such as conv-8-16, or conv-8-16x2 with two blocks in each stage."""
        return "-".join(["conv", *map(str, self.widths)]) + (f"x{self.blocks}" if self.blocks > 1 else "")

    def build(
        self, normalise: Normalise, shape: tuple[int, ...], labels: int, kind: Kind = "none", sources: int = 0
    ) -> StagedNetwork:
        """See :class:`training.networks.ModelClass`."""
        if len(shape) not in {2, 3}:
            raise BadConfig(f"A convolutional network takes samples (H, W) or (C, H, W), not of shape {list(shape)}.")
        reshape = nn.Unflatten(1, (1, shape[0])) if len(shape) == 2 else nn.Identity()
        stages: list[Stage] = []
        before = 1 if len(shape) == 2 else shape[0]
        for position, width in enumerate(self.widths):
            transition = _transition(before, width, stride=1 if position == 0 else 2)
            connection = connect(kind, sources, width, spatial=True)
            stages.append(Stage(transition, connection, nn.Sequential(*(Block(width) for _ in range(self.blocks)))))
            before = width
        # Flattened, not averaged over positions: in images this small it matters where a stroke is.
        head = nn.Sequential(nn.Flatten(), nn.Linear(before * _positions(shape, len(self.widths)), labels))
        return StagedNetwork(normalise, reshape, stages, head)

    def scaled(self, factor: float) -> Convolutional:
        """See :class:`training.networks.ModelClass`."""
        return dataclasses.replace(self, widths=scale_widths(self.widths, factor))


def _transition(before: int, width: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, width, kernel_size=3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())


def _positions(shape: Sequence[int], stages: int) -> int:
    height, width = shape[-2:]
    for _ in range(stages - 1):
        height, width = (height + 1) // 2, (width + 1) // 2
    return height * width
