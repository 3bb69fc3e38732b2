"""LSTM and GRU networks for sequences: a tap is the hidden state at every step.

A stage projects its input to the hidden width, adds the hidden sequences of earlier members, and runs the recurrence
on the sum: at each step a member reads what the members before it made of the steps so far, so that the chain
of recurrences grows deeper with every member. It never reads a later step, so a stream can be answered as it comes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from training.connections import Kind, connect
from training.errors import BadConfig
from training.networks.staged import Normalise, Stage, StagedNetwork, scale_widths


class Recurrence(nn.Module):
    """One layer of LSTM or GRU, forward in time, from a zero state."""

    def __init__(self, cell: Literal["lstm", "gru"], width: int) -> None:
        super().__init__()
        self.cell = (nn.LSTM if cell == "lstm" else nn.GRU)(width, width, batch_first=True)

    def forward(self, z: Tensor) -> Tensor:
        """(N, T, C) to the hidden states (N, T, C)."""
        hidden: Tensor = self.cell(z)[0]
        return hidden


class LastStep(nn.Module):
    """What the recurrence knows at the end."""

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, T, C) to (N, C)."""
        return hidden[:, -1]


@dataclass(frozen=True, kw_only=True)
class Recurrent:
    """For sequences (T, F) of a fixed number of steps."""

    cell: Literal["lstm", "gru"]
    widths: tuple[int, ...]
    """Hidden units of each stage."""
    blocks: int = 1
    """Recurrent layers in each stage."""

    @property
    def name(self) -> str:
        """Such as gru-32, or lstm-64-64x2 with two layers in each of two stages."""
        return "-".join([self.cell, *map(str, self.widths)]) + (f"x{self.blocks}" if self.blocks > 1 else "")

    def build(
        self, normalise: Normalise, shape: tuple[int, ...], labels: int, kind: Kind = "none", sources: int = 0
    ) -> StagedNetwork:
        """See :class:`training.networks.ModelClass`."""
        if len(shape) != 2:
            raise BadConfig(f"A recurrent network takes sequences (steps, features), not samples of {list(shape)}.")
        stages: list[Stage] = []
        before = shape[1]
        for width in self.widths:
            layers = nn.Sequential(*(Recurrence(self.cell, width) for _ in range(self.blocks)))
            stages.append(Stage(nn.Linear(before, width), connect(kind, sources, width, spatial=False), layers))
            before = width
        return StagedNetwork(normalise, nn.Identity(), stages, nn.Sequential(LastStep(), nn.Linear(before, labels)))

    def scaled(self, factor: float) -> Recurrent:
        """See :class:`training.networks.ModelClass`."""
        return dataclasses.replace(self, widths=scale_widths(self.widths, factor))
