"""A request as its client sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from service.engine.ticket import StoppedBy, Ticket


@dataclass(eq=False)
class Life:
    """From its coming until its end."""

    ticket: Ticket
    inputs: np.ndarray
    references: Sequence[np.ndarray]
    """The answers of all prefixes, (rows, classes) each."""
    outcome: StoppedBy | None = None
    settled: list[StoppedBy] = field(default_factory=list)
    cancelled: bool = False
    """Whether a message has been sent that it is to be dropped: no further step may begin for it."""
    on_end: Callable[[], None] = lambda: None
