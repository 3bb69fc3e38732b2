"""How a member sees earlier members' features: none, residual, dense (section 3.1.2).

A stage of a network is a transition, then a block; its output is a tap that later members may read. A connection
adds earlier members' taps of the same stage *between* the two, ``block(transition(x) + tap)``, so each
member's block works on features that already went through the blocks of the members before it: the chain
grows deeper with every member, while each member costs what the first one did.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["none", "residual", "dense"]


class Connection(nn.Module):
    """Merges taps of earlier members into a stage."""

    def forward(self, own: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """`own` and each of `earlier` have the shape of the stage; so has the result."""
        raise NotImplementedError

    def additions(self, merged: Tensor) -> int:
        """Element-wise additions of one evaluation; layers inside are counted as layers."""
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

    def additions(self, merged: Tensor) -> int:
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

    def additions(self, merged: Tensor) -> int:
        """The final sum."""
        return merged.numel()


def connect(kind: Kind, sources: int, width: int, *, spatial: bool) -> Connection | None:
    """The connection of one stage that reads `sources` earlier members; None when there is nothing to read."""
    if kind == "none" or sources == 0:
        return None
    return Residual(sources) if kind == "residual" else Dense(sources, width, spatial=spatial)


def sources_of(kind: Kind, expansion: int, index: int) -> tuple[int, ...]:
    """Which earlier members a member `index` of expansion F_r reads, ascending.

    `residual` reads the last r, `dense` from r = 1 on every earlier one, F_0 and `none` nobody.
    """
    if kind == "none" or expansion == 0:
        return ()
    return tuple(range(max(0, index - expansion), index)) if kind == "residual" else tuple(range(index))


def expansions(kind: Kind, first: int, count: int, index: int) -> list[tuple[int, tuple[int, ...]]]:
    """The expansions (r, sources) to search for member `index`, in order; none twice under another number."""
    found: dict[tuple[int, ...], int] = {}
    for expansion in range(first, count):
        sources = sources_of(kind, expansion, index)
        found.setdefault(sources, expansion if sources else 0)
    return [(expansion, sources) for sources, expansion in found.items()]
