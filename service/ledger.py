"""Answers that may still be labelled: the latest requests, and what each of their prefixes said."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from service.deployments import Deployment

Classes = npt.NDArray[np.intp]
Values = npt.NDArray[np.float32]
Entry = TypeVar("Entry")


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
    labelled: int = 0
    """The first so many prefixes have been labelled before: this answer goes on from them."""


class Ledger:
    """The latest `capacity` answers by request id; the oldest is forgotten first."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._answers: OrderedDict[str, Answered] = OrderedDict()
        self._labelled: OrderedDict[str, int] = OrderedDict()

    def remember(self, request_id: str, answered: Answered, *, goes_on: bool = False) -> None:
        """Keep an answer; one of the same id is replaced.

        Args:
            request_id: of the request.
            answered: the answer.
            goes_on: whether it continues the last one of this id, whose prefixes may have been labelled.
        """
        labelled, before = self._labelled.pop(request_id, 0), self._answers.get(request_id)
        if goes_on:
            labelled = max(labelled, before.labelled if before is not None else 0)
            answered = replace(answered, labelled=labelled)
        self._answers[request_id] = answered
        _trim(self._answers, request_id, self._capacity)

    def find(self, request_id: str) -> Answered | None:
        """The answer, or None."""
        return self._answers.get(request_id)

    def forget(self, request_id: str) -> None:
        """Drop an answer that has been labelled: no sample counts twice for a prefix."""
        answered = self._answers.pop(request_id, None)
        if answered is not None:
            self._labelled[request_id] = max(len(answered.classes_by_prefix), len(answered.values_by_prefix))
            _trim(self._labelled, request_id, self._capacity)


def _trim(entries: OrderedDict[str, Entry], latest: str, capacity: int) -> None:
    entries.move_to_end(latest)
    while len(entries) > capacity:
        entries.popitem(last=False)
