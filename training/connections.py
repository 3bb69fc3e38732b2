"""How a member sees earlier members' features: none, residual, dense, lstm, gru (section 3.1.2).

A stage of a network is a transition, then a block; its output is a tap that later members may read. A connection
adds earlier members' taps of the same stage *between* the two, ``block(transition(x) + tap)``, so each
member's block works on features that already went through the blocks of the members before it: the chain
grows deeper with every member, while each member costs what the first one did. The paper names the four kinds and
gives no formulas; those below are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

Kind = Literal["none", "residual", "dense", "lstm", "gru"]


class Connection(nn.Module):
    """Merges taps of earlier members into a stage."""

    def forward(self, own: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """`own` and each of `earlier` have the shape of the stage; so has the result."""
        raise NotImplementedError

    def elementwise(self, merged: Tensor) -> int:
        """Element-wise additions and products of one evaluation; layers inside are counted as layers."""
        raise NotImplementedError


class Residual(Connection):
    """``own + tap + tap ...``: no parameters, so an expanded class is as large as its base."""

    def __init__(self, sources: int) -> None:
        super().__init__()
        self._sources = sources

    def forward(self, own: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """Add every tap."""
        for tap in earlier:
            own = own + tap
        return own

    def elementwise(self, merged: Tensor) -> int:
        """One for each element of each tap."""
        return merged.numel() * self._sources


class Dense(Connection):
    """``own + P [tap, tap, ...]``: all earlier taps side by side, brought to the stage's width by a projection."""

    def __init__(self, sources: int, width: int, *, spatial: bool) -> None:
        super().__init__()
        self._axis = 1 if spatial else -1
        self._projection: nn.Module = (
            nn.Conv2d(sources * width, width, kernel_size=1, bias=False)
            if spatial
            else nn.Linear(sources * width, width, bias=False)
        )

    def forward(self, own: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """Concatenate along channels, project, add."""
        projected: Tensor = self._projection(torch.cat(list(earlier), dim=self._axis))
        return own + projected

    def elementwise(self, merged: Tensor) -> int:
        """The final sum."""
        return merged.numel()


class Gated(Connection):
    """A recurrent cell whose time runs over the members: its state is what the members before left, its input is new.

    The state begins as the oldest tap that is read; every later tap, and in the end the member's own features, take
    it one step further. The block goes on from the last state, and what it makes of it is the state that the next
    member finds. All reads share the weights, so an expanded class does not grow with r. Each position of an image and
    each step of a sequence has a state of its own.
    """

    gates: ClassVar[int]
    operations: ClassVar[int]
    """Additions and products of one step, for each element of the state."""

    def __init__(self, sources: int, width: int, *, spatial: bool) -> None:
        super().__init__()
        self._sources, self._axis = sources, 1 if spatial else -1
        self._input, self._state = (_pointwise(width, self.gates * width, spatial=spatial) for _ in range(2))

    def forward(self, own: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """The state after the last step."""
        memory, state = self.begin(earlier[0])
        for entry in (*earlier[1:], own):
            memory, state = self.step(self._input(entry), self._state(state), memory)
        return state

    def begin(self, tap: Tensor) -> tuple[Tensor, Tensor]:
        """The memory and the state that the oldest tap stands for."""
        raise NotImplementedError

    def step(self, from_input: Tensor, from_state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Memory and state after one step; the gates lie side by side in the first two."""
        raise NotImplementedError

    def elementwise(self, merged: Tensor) -> int:
        """One step for each source: the oldest is where the state begins, the last input is the member's own."""
        return self.operations * merged.numel() * self._sources


class LSTMGated(Gated):
    """``c' = f c + i tanh(.)``, ``h' = o tanh(c')`` (Hochreiter and Schmidhuber, 1997; with a forget gate)."""

    gates, operations = 4, 8

    def begin(self, tap: Tensor) -> tuple[Tensor, Tensor]:
        """The tap is the cell's memory, and its output gate is open."""
        return tap, torch.tanh(tap)

    def step(self, from_input: Tensor, from_state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Input, forget, candidate and output, in torch's order."""
        i, f, g, o = (from_input + from_state).chunk(4, dim=self._axis)
        memory = torch.sigmoid(f) * memory + torch.sigmoid(i) * torch.tanh(g)
        return memory, torch.sigmoid(o) * torch.tanh(memory)


class GRUGated(Gated):
    """``h' = (1 - z) tanh(W x + r U h) + z h`` (Cho et al., 2014; the reset gate after the product, as in torch)."""

    gates, operations = 3, 7

    def begin(self, tap: Tensor) -> tuple[Tensor, Tensor]:
        """The tap is the state; a GRU has no other memory."""
        return tap, tap

    def step(self, from_input: Tensor, from_state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Reset, update and candidate, in torch's order."""
        r_x, z_x, n_x = from_input.chunk(3, dim=self._axis)
        r_h, z_h, n_h = from_state.chunk(3, dim=self._axis)
        candidate = torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h)
        state = candidate + torch.sigmoid(z_x + z_h) * (memory - candidate)
        return state, state


def _pointwise(before: int, width: int, *, spatial: bool) -> nn.Module:
    return nn.Conv2d(before, width, kernel_size=1) if spatial else nn.Linear(before, width)


def connect(kind: Kind, sources: int, width: int, *, spatial: bool) -> Connection | None:
    """The connection of one stage that reads `sources` earlier members; None when there is nothing to read."""
    if kind == "none" or sources == 0:
        return None
    match kind:
        case "residual":
            return Residual(sources)
        case "dense":
            return Dense(sources, width, spatial=spatial)
        case "lstm":
            return LSTMGated(sources, width, spatial=spatial)
        case "gru":
            return GRUGated(sources, width, spatial=spatial)


def sources_of(kind: Kind, expansion: int, index: int) -> tuple[int, ...]:
    """Which earlier members a member `index` of expansion F_r reads, ascending.

    `residual`, `lstm` and `gru` read the last r, `dense` from r = 1 on every earlier one, F_0 and `none` nobody.
    """
    if kind == "none" or expansion == 0:
        return ()
    return tuple(range(index)) if kind == "dense" else tuple(range(max(0, index - expansion), index))


def expansions(kind: Kind, first: int, count: int, index: int) -> list[tuple[int, tuple[int, ...]]]:
    """The expansions (r, sources) to search for member `index`, in order; none twice under another number."""
    found: dict[tuple[int, ...], int] = {}
    for expansion in range(first, count):
        sources = sources_of(kind, expansion, index)
        found.setdefault(sources, expansion if sources else 0)
    return [(expansion, sources) for sources, expansion in found.items()]
