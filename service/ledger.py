"""Answers that may still be labelled: the latest requests, and what each of their prefixes said."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from service.deployments import Deployment
from service.engine.ticket import Labelled

Classes = npt.NDArray[np.intp]
Values = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer that was given."""

    deployment: Deployment
    classes_by_prefix: tuple[Classes | None, ...]
    """Winning class of each row after each member that was used; empty for a regression. None for a member that was
    left out."""
    members_by_row: Classes
    """Members in each row's answer."""
    values_by_prefix: tuple[Values | None, ...] = ()
    """Of a regression: the values (rows, outputs) after each member that was used."""
    comparable: int | None = None
    """The first so many prefixes were reached by all rows, hard or easy: what is counted of them says how good they are
    in general. None: all."""
    labelled: Labelled = field(default_factory=Labelled)
    """Prefixes that have been labelled, of this answer or of one that it goes on from."""


class Ledger:
    """The latest `capacity` answers by request id; the oldest is forgotten first."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._answers: OrderedDict[str, Answered] = OrderedDict()

    def remember(self, request_id: str, answered: Answered) -> None:
        """Keep an answer; one of the same id is replaced."""
        self._answers[request_id] = answered
        self._answers.move_to_end(request_id)
        while len(self._answers) > self._capacity:
            self._answers.popitem(last=False)

    def find(self, request_id: str) -> Answered | None:
        """The answer, or None."""
        return self._answers.get(request_id)

    def forget(self, request_id: str) -> None:
        """Drop an answer that has been labelled: no sample counts twice for a prefix."""
        answered = self._answers.pop(request_id, None)
        if answered is not None:
            answered.labelled.prefixes = max(len(answered.classes_by_prefix), len(answered.values_by_prefix))
