"""One request's life in the engine, from admission to the one answer it gets.

A ticket is shared by two threads without a lock, because every field has one writer:

- the event loop makes it and settles its future;
- the worker moves `depth`, `total` and `activations`, and publishes each finished prefix by assigning a new
  immutable `Published`. Whoever reads `published`, at any instant, sees a whole answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from bundle.record import Task
from service.engine.deadline import Deadline
from service.engine.outlook import Outlook
from service.engine.profile import Profile, Values
from service.engine.stream import Part

Logits = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]

PROGRESS = (
    "depth",
    "inputs",
    "total",
    "activations",
    "classes_by_prefix",
    "values_by_prefix",
    "remaining",
    "published",
    "outlook",
)
"""Fields of a ticket that say how far it has come: what a request that resumes it takes over."""


class StoppedBy(StrEnum):
    """Why no further member was run. A client sees all but `abandoned`."""

    COMPLETE = "complete"
    DEADLINE = "deadline"
    MAX_MEMBERS = "max_members"
    TARGET_ACCURACY = "target_accuracy"
    EXIT_CONFIDENCE = "exit_confidence"
    EXIT_RISK = "exit_risk"
    MEMBER_FAILED = "member_failed"
    ABANDONED = "abandoned"
    """The client hung up."""
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class Published:
    """The answer after `members` members. Nobody changes its arrays afterwards."""

    members: int
    logits: Logits
    """(rows, classes): the prefix of `members` members; of fewer where a row has left early. Of a regression the
    values, (rows, outputs)."""
    members_by_row: Rows
    """Members of the prefix that each row's answer is, (rows,)."""


@dataclass(frozen=True, slots=True)
class Exit:
    """When rows may leave early: after prefix k, at a calibrated confidence of `thresholds[k - 1]` or more."""

    thresholds: tuple[float | None, ...]
    """One for each prefix but the whole ensemble; None: nobody leaves there."""
    reason: StoppedBy


@dataclass(slots=True)
class Labelled:
    """How many prefixes of a request's samples have been labelled: shared with all that goes on from it."""

    prefixes: int = 0


@dataclass(slots=True, eq=False, weakref_slot=True)
class Ticket:
    """A request: rows of one model, due at one deadline."""

    request_id: str
    model: str
    """Key of the deployment, `name/version`."""
    inputs: npt.NDArray[Any]
    """(rows that have not left, *input shape), in the manifest's dtype."""
    deadline: Deadline
    profile: Profile
    members_total: int
    member_limit: int
    """Members to run at most; `members_total` unless the client asked for fewer."""
    member_minimum: int = 1
    """Members that are mandatory: with fewer there is no answer."""
    limited_by: StoppedBy = StoppedBy.COMPLETE
    """What the request has reached at `member_limit`."""
    exit: Exit | None = None
    comparable: int | None = None
    """The first so many prefixes are reached by all rows, hard or easy; None: all are."""
    priority: int = 0
    """Higher comes first while parts are mandatory, and counts twice as much with each level when they are not."""
    task: Task = "classification"
    depth: int = 0
    """Members done; of a stream, those that have answered to its chunk."""
    started: float | None = None
    """When its first step began."""
    ended: float | None = None
    """When it was decided that it gets no further member."""
    total: Logits | None = None
    """Sum of the logits of the members done, (rows that have not left, classes)."""
    activations: dict[tuple[int, str], Any] = field(default_factory=dict)
    """What later members will read, by (member, output); in whatever form the executor keeps it."""
    classes_by_prefix: list[Rows | None] = field(default_factory=list)
    """Winning class of each row after each member, None for one that was left out: agreement and feedback are
    counted from these."""
    values_by_prefix: list[Logits | None] = field(default_factory=list)
    """Of a regression: its values after each member instead."""
    remaining: Rows | None = None
    """Which rows have not left; None: all of them are here."""
    published: Published | None = None
    outlook: Outlook | Values = ()
    """What further members are worth: `expected`, or what it follows from when somebody asks."""
    way_rate: float = 0.0
    """Expected right answers per second of the way that was planned for it."""
    way_until: float = math.inf
    """When the way that was planned for it must begin, at the latest."""
    on_published: Callable[[], object] | None = None
    """Called on the worker's thread after each published prefix: for who watches the request get better."""
    labelled: Labelled = field(default_factory=Labelled)
    keep: bool = False
    """Whether its state may be asked for after it has been answered."""
    resumes: Ticket | None = None
    """The answered request that this one goes on from, until `take_over`."""
    part: Part | None = None
    """Of a chunk of a stream: where what its members read and remember is. None: `inputs` are all there is."""

    def __post_init__(self) -> None:
        self.outlook = self.profile.at_start(self.rows)
        if self.exit is not None and self.comparable is None:
            depths = range(self.member_minimum, self.members_total)
            self.comparable = next((depth for depth in depths if self.exit.thresholds[depth - 1] is not None), None)

    @property
    def rows(self) -> int:
        """Samples that have not left."""
        return len(self.inputs)

    @property
    def expected(self) -> Values:
        """Right answers expected at `depth` and at every later one, of the rows that have not left."""
        outlook = self.outlook
        return outlook.values if isinstance(outlook, Outlook) else outlook

    @property
    def answerable(self) -> bool:
        """Whether it has the members without which there is no answer."""
        return self.published is not None and self.published.members >= self.member_minimum

    @property
    def in_arrears(self) -> bool:
        """Whether it is a chunk of a stream that has had its answer: its members only catch up."""
        return self.part is not None and self.ended is not None

    @property
    def is_over(self) -> bool:
        """Whether it has all the members it may have, and nobody can ask for more."""
        return self.depth >= self.member_limit and self.exit is None and not self.keep

    def resumed(self, request_id: str, deadline: Deadline, member_limit: int, *, keep: bool) -> Ticket:
        """A request that goes on where this one stopped; this one must have been settled or cancelled.

        It has this one's answer from the start. The rest it takes over when it is admitted: the worker may at this
        moment be running a last step of this one, whose result then counts too. Rows that left early stay as they
        are.
        """
        published = self.published
        assert published is not None
        return Ticket(
            request_id=request_id,
            model=self.model,
            inputs=self.inputs,
            deadline=deadline,
            profile=self.profile,
            members_total=self.members_total,
            member_limit=member_limit,
            limited_by=StoppedBy.COMPLETE if member_limit == self.members_total else StoppedBy.MAX_MEMBERS,
            comparable=self.comparable,
            labelled=self.labelled,
            priority=self.priority,
            published=published,
            task=self.task,
            classes_by_prefix=self.classes_by_prefix[: published.members],
            values_by_prefix=self.values_by_prefix[: published.members],
            keep=keep,
            resumes=self,
        )

    def take_over(self) -> None:
        """Take the progress of the request that this one resumes; on the worker's thread, between two steps."""
        earlier, self.resumes = self.resumes, None
        if earlier is not None:
            for name in PROGRESS:
                setattr(self, name, getattr(earlier, name))
            if not self.rows:
                # The last row has left in a step that was running when the earlier one was answered.
                self.exit = earlier.exit
            # Copied, lest two tickets write the same dictionary; the tensors in it are nobody's to change.
            self.activations = dict(earlier.activations)

    def publish(self, member: int, logits: Logits, combine: str) -> Logits:
        """Join the logits of a member (rows, classes), publish the prefix they complete, and return its answer.

        A member that replaces the answer may come before its turn: the prefix is the same without those between.
        """
        skipped = [None] * (member - self.depth)
        self.depth = member + 1
        if combine == "replace":
            answer = logits.copy()
        else:
            self.total = logits.copy() if self.total is None else self.total + logits
            answer = self.total if self.depth == 1 else self.total / np.float32(self.depth)
        if self.remaining is None or self.published is None:
            whole, members = answer, _all_at(self.depth, len(answer))
        else:
            whole, members = self.published.logits.copy(), self.published.members_by_row.copy()
            whole[self.remaining], members[self.remaining] = answer, self.depth
        regression = self.task == "regression"
        self.outlook = Outlook(self.profile, self.depth, answer, regression=regression)
        if regression:
            self.values_by_prefix += [*skipped, whole]
        else:
            self.classes_by_prefix += [*skipped, whole.argmax(axis=1)]
        self.published = Published(self.depth, whole, members)
        if self.on_published is not None:
            self.on_published()
        return answer

    def leaving(self, confidences: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_] | None:
        """Which rows leave with the prefix just published, given its calibrated confidences; None: nobody does."""
        if self.exit is None or not self.member_minimum <= self.depth < self.members_total:
            return None
        threshold = self.exit.thresholds[self.depth - 1]
        leaving = None if threshold is None else confidences >= threshold
        return leaving if leaving is not None and leaving.any() else None

    def retain(self, rows: Rows) -> None:
        """Let all rows but these leave with the prefix they have; `activations` are the executor's to narrow."""
        self.inputs = self.inputs[rows]
        self.total = None if self.total is None else self.total[rows]
        self.remaining = rows if self.remaining is None else self.remaining[rows]


# Most requests have one row, and nobody changes what is published.
@lru_cache(maxsize=256)
def _all_at(depth: int, rows: int) -> Rows:
    """The depth of each row where all are at the same."""
    members = np.full(rows, depth, np.intp)
    members.flags.writeable = False
    return members
