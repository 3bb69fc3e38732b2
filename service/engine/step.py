"""What the scheduler decides: which members run next on whose rows, and whom it is done with. Standard library only."""

from __future__ import annotations

from typing import NamedTuple

from service.engine.halt import Halt
from service.engine.ticket import StoppedBy, Ticket

Key = tuple[str, int]
"""Model and member."""


class Step(NamedTuple):
    """One run of one member, or of several. Without tickets it is a rehearsal on rows of zeros."""

    model: str
    member: int
    tickets: tuple[Ticket, ...]
    rows: int
    width: int = 1
    """Members that run, `member` and those that follow it: of a wave side by side, unless they are fused."""
    fused: bool = False
    """Whether they are a group that runs in one go."""
    on_one_thread: bool = False
    """Whether it is to take as little from others as it can; else it runs as warm-up has chosen."""
    halt: Halt | None = None
    """How to give it up for somebody who comes while it runs; None: it runs to its end."""

    @property
    def members(self) -> range:
        """The members that run."""
        return range(self.member, self.member + self.width)


class Running(NamedTuple):
    """A step that has begun, for who asks from another thread when its device will be free."""

    until: float
    """When it is predicted to end; it may be later than that."""
    step: Step | None
    began: float = 0.0
    """When it has begun."""


IDLE = Running(0.0, None)
"""Between two steps."""


class Settled(NamedTuple):
    """A request that gets no further member, and why."""

    ticket: Ticket
    stopped_by: StoppedBy
