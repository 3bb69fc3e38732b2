"""LSTM and GRU networks for sequences: a tap is the hidden state at every step.

A stage projects its input to the hidden width, adds the hidden sequences of earlier members, and runs the recurrence
on the sum: at each step a member reads what the members before it made of the steps so far, so that the chain
of recurrences grows deeper with every member. It never reads a later step, so a stream can be answered as it comes.

The first stage may read several steps at once, a frame: the recurrence, and everything after it, then goes from frame
to frame, and "step" means the frame's last one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from torch import Tensor, nn

from training.connections import Kind, connect
from training.errors import BadConfig
from training.networks.staged import Normalise, Stage, StagedNetwork, scale_widths

Cell = Literal["lstm", "gru"]
State = tuple[Tensor, ...]
"""What a layer hands from step to step, each (N, C): the hidden state, and of an LSTM the cell state."""


class Recurrence(nn.Module):
    """One layer of LSTM or GRU, forward in time."""

    def __init__(self, cell: Cell, width: int) -> None:
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


class Frames(nn.Conv1d):
    """A projection of every `steps` steps together to one; frames do not overlap.

    A convolution, because no operator of its graph depends on how many steps there are.
    """

    def __init__(self, features: int, width: int, steps: int) -> None:
        super().__init__(features, width, kernel_size=steps, stride=steps)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, F) to (N, T / steps, C)."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class LastStep(nn.Module):
    """What the recurrence knows at the end."""

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, T, C) to (N, C)."""
        return hidden[:, -1]


class RecurrentNetwork(StagedNetwork):
    """A staged network that can answer after every step, and go on where a part of the sequence ended."""

    def logits_of_steps(self, taps: Sequence[Tensor]) -> Tensor:
        """(N, T, L): what the one classifier, shared by all steps, says after each (EMI-RNN, Eq. 3.2.1).

        Where steps are read in frames, after each frame.
        """
        logits_NTL: Tensor = self.head[-1](taps[-1])
        return logits_NTL

    @property
    def widths(self) -> tuple[int, ...]:
        """Features of each stage's tap."""
        return tuple(next(cast(Stage, stage).transition.parameters()).shape[0] for stage in self.stages)

    @property
    def frame(self) -> int:
        """Steps that are read at once."""
        first = cast(Stage, self.stages[0]).transition
        return first.kernel_size[0] if isinstance(first, Frames) else 1

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
            x: raw steps (N, chunk, F), whole frames.
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

    cell: Cell
    widths: tuple[int, ...]
    """Hidden units of each stage."""
    blocks: int = 1
    """Recurrent layers in each stage."""
    frame: int = 1
    """Steps that are read at once; they must divide the sequence."""

    @property
    def name(self) -> str:
        """Such as gru-32, lstm-64-64x2 with two layers in each of two stages, or gru-32/5 that reads five steps."""
        layers = f"x{self.blocks}" if self.blocks > 1 else ""
        return "-".join([self.cell, *map(str, self.widths)]) + layers + (f"/{self.frame}" if self.frame > 1 else "")

    def build(
        self, normalise: Normalise, shape: tuple[int, ...], labels: int, kind: Kind = "none", sources: int = 0
    ) -> RecurrentNetwork:
        """See :class:`training.networks.ModelClass`."""
        if self.cell not in get_args(Cell):
            raise BadConfig(f"cell={self.cell!r} is none of: {', '.join(get_args(Cell))}.")
        if len(shape) != 2:
            raise BadConfig(f"A recurrent network takes sequences (steps, features), not samples of {list(shape)}.")
        if shape[0] % self.frame:
            raise BadConfig(f"{self.frame} steps at once must divide the {shape[0]} steps of a sequence.")
        stages: list[Stage] = []
        before = shape[1]
        for width in self.widths:
            framed = self.frame > 1 and not stages
            transition = Frames(before, width, self.frame) if framed else nn.Linear(before, width)
            layers = nn.Sequential(*(Recurrence(self.cell, width) for _ in range(self.blocks)))
            stages.append(Stage(transition, connect(kind, sources, width, spatial=False), layers))
            before = width
        head = nn.Sequential(LastStep(), nn.Linear(before, labels))
        return RecurrentNetwork(normalise, nn.Identity(), stages, head)

    def scaled(self, factor: float) -> Recurrent:
        """See :class:`training.networks.ModelClass`."""
        return dataclasses.replace(self, widths=scale_widths(self.widths, factor))
