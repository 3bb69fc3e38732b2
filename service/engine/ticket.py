"""One request's life in the engine, from admission to the one answer it gets.

A ticket is shared by two threads without a lock, because every field has one writer:

- the event loop makes it and settles its future;
- the worker moves `depth`, `total` and `activations`, and publishes each finished prefix by assigning a new
  immutable `Published`. Whoever reads `published`, at any instant, sees a whole answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from bundle.record import Task
from service.engine.deadline import Deadline

Logits = npt.NDArray[np.float32]

PROGRESS = ("depth", "total", "activations", "classes_by_prefix", "values_by_prefix", "published")
"""Fields of a ticket that say how far it has come: what a request that resumes it takes over."""


class StoppedBy(StrEnum):
    """Why no further member was run. A client sees all but `abandoned`."""

    COMPLETE = "complete"
    DEADLINE = "deadline"
    MAX_MEMBERS = "max_members"
    MEMBER_FAILED = "member_failed"
    ABANDONED = "abandoned"
    """The client hung up."""
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class Published:
    """The answer after `members` members. Nobody changes `logits` afterwards."""

    members: int
    logits: Logits
    """Running average, (rows, classes); of a regression the values (rows, outputs)."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Ticket:
    """A request: rows of one model, due at one deadline."""

    request_id: str
    model: str
    """Key of the deployment, `name/version`."""
    inputs: npt.NDArray[Any]
    """(rows, *input shape), in the manifest's dtype."""
    deadline: Deadline
    members_total: int
    member_limit: int
    """Members to run at most; `members_total` unless the client asked for fewer."""
    task: Task = "classification"
    depth: int = 0
    """Members done."""
    started: float | None = None
    """When its first step began."""
    ended: float | None = None
    """When it was decided that it gets no further member."""
    total: Logits | None = None
    """Sum of the logits of the members done."""
    activations: dict[tuple[int, str], Any] = field(default_factory=dict)
    """What later members will read, by (member, output); in whatever form the executor keeps it."""
    classes_by_prefix: list[npt.NDArray[np.intp]] = field(default_factory=list)
    """Winning class of each row after each member: agreement and feedback are counted from these."""
    values_by_prefix: list[Logits] = field(default_factory=list)
    """Of a regression: its values after each member instead."""
    published: Published | None = None
    on_published: Callable[[], object] | None = None
    """Called on the worker's thread after each published prefix: for who watches the request get better."""
    keep: bool = False
    """Whether its state may be asked for after it has been answered."""
    resumes: Ticket | None = None
    """The answered request that this one goes on from, until `take_over`."""

    @property
    def rows(self) -> int:
        """Samples in the request."""
        return len(self.inputs)

    def resumed(self, request_id: str, deadline: Deadline, member_limit: int, *, keep: bool) -> Ticket:
        """A request that goes on where this one stopped; this one must have been settled or cancelled.

        It has this one's answer from the start. The rest it takes over when it is admitted: the worker may at this
        moment be running a last step of this one, whose result then counts too.
        """
        published = self.published
        assert self.published is not None
        return Ticket(
            request_id=request_id,
            model=self.model,
            inputs=self.inputs,
            deadline=deadline,
            members_total=self.members_total,
            member_limit=member_limit,
            published=published,
            task=self.task,
            classes_by_prefix=self.classes_by_prefix[: published.members if published else 0],
            values_by_prefix=self.values_by_prefix[: published.members if published else 0],
            keep=keep,
            resumes=self,
        )

    def take_over(self) -> None:
        """Take the progress of the request that this one resumes; on the worker's thread, between two steps."""
        earlier, self.resumes = self.resumes, None
        if earlier is not None:
            for name in PROGRESS:
                setattr(self, name, getattr(earlier, name))
            # Copied, lest two tickets write the same dictionary; the tensors in it are nobody's to change.
            self.activations = dict(earlier.activations)

    def publish(self, logits: Logits, combine: str) -> None:
        """Join one more member's logits (rows, classes), and publish the prefix they complete."""
        self.depth += 1
        if combine == "replace":
            answer = logits.copy()
        else:
            self.total = logits.copy() if self.total is None else self.total + logits
            answer = self.total / np.float32(self.depth)
        if self.task == "regression":
            self.values_by_prefix.append(answer)
        else:
            self.classes_by_prefix.append(answer.argmax(axis=1))
        self.published = Published(self.depth, answer)
        if self.on_published is not None:
            self.on_published()
