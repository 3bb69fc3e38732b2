"""LSTM and GRU networks for sequences: a tap is the hidden state at every step.

A stage projects its input to the hidden width, adds the hidden sequences of earlier members, and runs the recurrence
on the sum: at each step a member reads what the members before it made of the steps so far, so that the chain
of recurrences grows deeper with every member. It never reads a later step, so a stream can be answered as it comes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from torch import Tensor, nn

from training.connections import Kind, connect
from training.errors import BadConfig
from training.networks.staged import Normalise, Stage, StagedNetwork, scale_widths

State = tuple[Tensor, ...]
"""What a layer hands from step to step, each (N, C): the hidden state, and of an LSTM the cell state."""


class Recurrence(nn.Module):
    """One layer of LSTM or GRU, forward in time."""

    def __init__(self, cell: Literal["lstm", "gru"], width: int) -> None:
        super().__init__()
        self.cell = (nn.LSTM if cell == "lstm" else nn.GRU)(width, width, batch_first=True)
        self.states = 2 if cell == "lstm" else 1
        """Tensors in a state."""

    def forward(self, z: Tensor) -> Tensor:
        """(N, T, C) to the hidden states (N, T, C), from a zero state."""
        hidden: Tensor = self.cell(z)[0]
        return hidden

    def go_on(self, z: Tensor, state: State) -> tuple[Tensor, State]:
        """The same from `state`; also the state after the last step."""
        before = tuple(value.unsqueeze(0) for value in state)
        hidden, after = self.cell(z, before if self.states == 2 else before[0])
        return hidden, tuple(value.squeeze(0) for value in (after if self.states == 2 else (after,)))


class LastStep(nn.Module):
    """What the recurrence knows at the end."""

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, T, C) to (N, C)."""
        return hidden[:, -1]


class RecurrentNetwork(StagedNetwork):
    """A staged network that can answer after every step, and go on where a part of the sequence ended."""

    def logits_of_steps(self, taps: Sequence[Tensor]) -> Tensor:
        """(N, T, L): what the one classifier, shared by all steps, says after each (EMI-RNN, Eq. 3.2.1)."""
        logits_NTL: Tensor = self.head[-1](taps[-1])
        return logits_NTL

    @property
    def widths(self) -> tuple[int, ...]:
        """Features of each stage's tap."""
        return tuple(cast(nn.Linear, cast(Stage, stage).transition).out_features for stage in self.stages)

    @property
    def labels(self) -> int:
        """L."""
        return cast(nn.Linear, self.head[-1]).out_features

    def layers(self) -> Iterator[Recurrence]:
        """Every recurrent layer, in order."""
        for stage in self.stages:
            for layer in cast(nn.Sequential, stage.block):
                yield cast(Recurrence, layer)

    def go_on(
        self, x: Tensor, earlier: Sequence[Sequence[Tensor]], states: Sequence[State]
    ) -> tuple[Tensor, list[Tensor], list[State]]:
        """One chunk: logits (N, L) after its last step, taps of its steps, and the state of every layer after it.

        Args:
            x: raw steps (N, chunk, F).
            earlier: for each stage the taps of the members it reads, of the same steps.
            states: of every layer before the first of these steps; zeros at the beginning of a sequence.
        """
        hidden, taps, after = self.reshape(self.normalise(x)), list[Tensor](), list[State]()
        for position, stage in enumerate(self.stages):
            hidden = cast(Stage, stage).enter(hidden, earlier[position] if earlier else ())
            for layer in cast(nn.Sequential, stage.block):
                hidden, state = cast(Recurrence, layer).go_on(hidden, states[len(after)])
                after.append(state)
            taps.append(hidden)
        return self.head(hidden), taps, after


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
    ) -> RecurrentNetwork:
        """See :class:`training.networks.ModelClass`."""
        if len(shape) != 2:
            raise BadConfig(f"A recurrent network takes sequences (steps, features), not samples of {list(shape)}.")
        stages: list[Stage] = []
        before = shape[1]
        for width in self.widths:
            layers = nn.Sequential(*(Recurrence(self.cell, width) for _ in range(self.blocks)))
            stages.append(Stage(nn.Linear(before, width), connect(kind, sources, width, spatial=False), layers))
            before = width
        head = nn.Sequential(LastStep(), nn.Linear(before, labels))
        return RecurrentNetwork(normalise, nn.Identity(), stages, head)

    def scaled(self, factor: float) -> Recurrent:
        """See :class:`training.networks.ModelClass`."""
        return dataclasses.replace(self, widths=scale_widths(self.widths, factor))
