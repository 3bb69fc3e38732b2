"""The schema of manifest.json: everything a server needs to know about an ensemble.

The manifest describes an ordered ensemble. Member ``k`` reads the bundle's input and, through its
*connections*, named outputs of earlier members; ``from_member < index``, so list order is execution order.
After ``k`` members the answer is the mean of their logits (Algorithm 1, line 13), unless the last of them
says ``combine: replace``: then its logits alone are the answer.

All shapes exclude the batch axis, which is dynamic and comes first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from bundle.chunk import Chunk
from bundle.edges import Connection, Tensor
from bundle.quality import Evaluation, ExitRule, Prefix, quality_of
from bundle.record import NAME_PATTERN, NonNegative, Record, Sha256, Share, Task

FORMAT_VERSION: Final = 1
"""Raised whenever an older reader would misread a newer manifest."""


class Round(Record):
    """How the boosting round that found this member went (Algorithms 1 and 2)."""

    attempts: Annotated[int, Field(ge=1)]
    """Searches until a member was taken: random restarts, over all classes and expansions."""
    model_class: str
    """Name of the class F_m that the member came from."""
    expansion: Annotated[int, Field(ge=0)]
    """r of F_r: 0 is the base class, 1 adds one wiring step to earlier members."""
    smallest_edge: float
    """Definition 1's sum at the label where it is smallest, on the whole training set."""
    eq7_share: Share
    """Share of (sample, label) pairs for which Eq. 7 holds; ties (K+ = K-) do not count."""
    weak_learner: bool
    """Whether the search accepted it: Definition 1 held for every label, the residual stayed within the bound and the
    prefix did not get worse on validation. False: best candidate, taken because the run was told to go on."""
    effective_samples: NonNegative | None = None
    """Smallest effective sample size over labels of the weights the member was searched under."""


class Member(Record):
    """One ONNX graph of the ensemble."""

    index: Annotated[int, Field(ge=0)]
    file: str
    sha256: Sha256
    connections: tuple[Connection, ...] = ()
    logits: str
    """Name of the output that holds the logits (batch, classes); of a regression the values (batch, outputs)."""
    combine: Literal["mean", "replace"] = "mean"
    """`mean`: the logits join the running average; `replace`: they become the answer (last member only)."""
    outputs: tuple[Tensor, ...]
    """Every output of the graph, logits included."""
    chunk: Chunk | None = None
    """The same member for a stream; None where the input is no sequence, or the member cannot go on from a state."""
    flops: NonNegative
    """Floating point operations per sample, connections included; one multiply-add is two."""
    connection_flops: NonNegative = 0
    """The part of `flops` that the connections cost (Figure 3)."""
    parameters: Annotated[int, Field(ge=0)]
    round: Round | None = None
    """None when the member did not come from a boosting round."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if PurePosixPath(self.file).name != self.file or self.file in {"", ".", ".."}:
            raise ValueError(f"member {self.index}: file {self.file!r} must be a plain file name")
        names = [output.name for output in self.outputs]
        if len(set(names)) != len(names):
            raise ValueError(f"member {self.index}: two outputs have the same name")
        if self.logits not in names:
            raise ValueError(f"member {self.index}: logits {self.logits!r} is not among its outputs")
        inputs = [connection.input for connection in self.connections]
        if len(set(inputs)) != len(inputs):
            raise ValueError(f"member {self.index}: two connections feed the same input")
        if self.chunk and self.combine == "replace":
            raise ValueError(f"member {self.index}: a stream is answered by a mean, so it has no chunk graph")
        return self

    def output(self, name: str) -> Tensor | None:
        """The output called `name`, or None."""
        return next((output for output in self.outputs if output.name == name), None)


class Teacher(Record):
    """The network that was decomposed; flops and parameters are None when only its logits were given."""

    name: str
    accuracy: Share | None = None
    rmse: NonNegative | None = None
    """Regression: root mean squared error on the held-out split, in the unit of the labels."""
    r2: Annotated[float, Field(le=1)] | None = None
    """Regression: coefficient of determination there."""
    flops: NonNegative | None = None
    parameters: Annotated[int, Field(ge=0)] | None = None

    @property
    def quality(self) -> float:
        """As :attr:`bundle.quality.Prefix.quality`."""
        return quality_of(self.accuracy, self.r2)

    def check_task(self, task: Task) -> None:
        """Raise ValueError when the measures are not those of the task."""
        classifier = self.accuracy is not None
        regression = self.rmse is not None and self.r2 is not None
        if (classifier, regression) != (task == "classification", task == "regression"):
            raise ValueError(f"teacher: a {task} needs {'accuracy' if task == 'classification' else 'rmse and r2'}")


class Refinement(Record):
    """Training of all members together, after the rounds, on the distillation loss of every prefix.

    Members' `round` records describe their rounds, so the members before it; the facts here are those after it.
    """

    epochs: Annotated[int, Field(ge=1)]
    kept: Annotated[int, Field(ge=0)]
    """The epoch whose members were kept, for the lowest loss on validation; 0: the members as the rounds left them."""
    validation_loss_before: float
    """Weighted mean over prefixes of the loss on validation, before the first epoch."""
    validation_loss: float
    """The same of what was kept."""
    smallest_edges: tuple[float, ...]
    """For each member Definition 1's smallest edge under the weights that the members before it leave."""
    eq7_shares: tuple[Share, ...]
    """For each member the share of pairs for which Eq. 7 holds, likewise."""


class Training(Record):
    """Everything needed to run the training again."""

    recipe: str
    config: dict[str, Any]
    seed: int
    gamma: NonNegative
    eta: NonNegative
    B: NonNegative
    """Bound of Eq. 6 on the centred logits."""
    temperature: NonNegative
    data_sha256: Sha256
    teacher_sha256: Sha256 | None = None
    """Of its logits, or of every tensor of its state; None in bundles that are older than this field."""
    packages: dict[str, str]
    commit: str | None = None
    """git commit of the trainer, `-dirty` appended when the tree had changes; None outside a checkout."""
    stopped: str | None = None
    """Why the run ended before its T rounds, if it did."""
    refinement: Refinement | None = None
    """None: members are as their rounds left them."""


class Manifest(Record):
    """manifest.json."""

    format_version: Literal[1] = FORMAT_VERSION
    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    version: Annotated[int, Field(ge=1)]
    created: datetime
    task: Task = "classification"
    input: Tensor
    """The raw input: preprocessing is inside the graphs."""
    chunk_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps of the sequence that a chunk graph takes at once, a divisor of the whole; None: there are no chunk graphs.
    The members that have one come first, so a stream is answered by a prefix of the ensemble."""
    classes: tuple[str, ...]
    """Names of the classes; of a regression, of its outputs. One for each column of the logits."""
    members: Annotated[tuple[Member, ...], Field(min_length=1)]
    prefixes: tuple[Prefix, ...]
    evaluation: Evaluation
    """Where `prefixes` and `exits` were measured; never seen by training, selection or calibration."""
    calibration: Evaluation | None = None
    """Where temperatures, outlooks and thresholds were fitted; None: nowhere."""
    exits: tuple[ExitRule, ...] = ()
    """Guaranteed early exits, by ascending risk."""
    teacher: Teacher
    training: Training | None = None
    """None for a bundle that another tool wrote."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_task()
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: two have the same name")
        files = [file for file, _ in self.files()]
        if len(set(files)) != len(files):
            raise ValueError("members: two share a file")
        for position, member in enumerate(self.members):
            self._check_member(position, member)
        if [prefix.members for prefix in self.prefixes] != list(range(1, len(self.members) + 1)):
            raise ValueError("prefixes: must list 1, 2, ... up to the number of members, in order")
        self._check_calibration()
        self._check_chunks()
        return self

    def files(self) -> tuple[tuple[str, str], ...]:
        """Name and SHA-256 of every graph."""
        graphs: list[Member | Chunk] = [*self.members, *self.streaming]
        return tuple((graph.file, graph.sha256) for graph in graphs)

    @property
    def streaming(self) -> tuple[Chunk, ...]:
        """The chunk graphs of the members that can answer a stream: the first ones, perhaps none."""
        return tuple(member.chunk for member in self.members if member.chunk)

    @property
    def averaged(self) -> tuple[Prefix, ...]:
        """The prefixes whose answer is a running average: all but that of a last stage that replaces it."""
        return tuple(
            prefix for prefix, member in zip(self.prefixes, self.members, strict=True) if member.combine == "mean"
        )

    @property
    def chunk_input(self) -> Tensor:
        """The raw input of a chunk graph: the bundle's, `chunk_steps` steps long."""
        if self.chunk_steps is None:
            raise ValueError(f"bundle {self.name!r} has no chunk graphs")
        return self.input.model_copy(update={"shape": (self.chunk_steps, *self.input.shape[1:])})

    def _check_chunks(self) -> None:
        have = [member.chunk is not None for member in self.members]
        if have != sorted(have, reverse=True):
            raise ValueError("members: one without a chunk graph stands before one with it")
        if (self.chunk_steps is None) == have[0]:
            raise ValueError("chunk_steps: must be given exactly when the first member has a chunk graph")
        if self.chunk_steps and (not self.input.shape or self.input.shape[0] % self.chunk_steps):
            raise ValueError(f"chunk_steps: {self.chunk_steps} does not divide the steps of input {self.input.shape}")
        for position, chunk in enumerate(self.streaming):
            logits = chunk.output(chunk.logits)
            if logits is not None and logits.shape != (len(self.classes),):
                raise ValueError(
                    f"chunk {chunk.file}: logits have shape {logits.shape} for {len(self.classes)} classes"
                )
            for connection in chunk.connections:
                self._check_connection(position, connection, self.streaming)

    def _check_task(self) -> None:
        if self.task == "classification" and len(self.classes) < 2:
            raise ValueError("classes: a classifier needs at least two")
        if not self.classes:
            raise ValueError("classes: a regression needs at least one, the name of its output")
        for prefix in self.prefixes:
            prefix.check_task(self.task)
        self.teacher.check_task(self.task)
        if self.task == "regression" and self.exits:
            raise ValueError("exits: a regression has none, because its answers have no confidence")

    def _check_calibration(self) -> None:
        total = len(self.members)
        for prefix in self.prefixes:
            if any(len(band.accuracy) != total - prefix.members + 1 for band in prefix.outlook):
                raise ValueError(f"prefix {prefix.members}: each band of its outlook needs an accuracy for every depth")
        risks = [rule.risk for rule in self.exits]
        if risks != sorted(set(risks)):
            raise ValueError("exits: must be listed by ascending risk")
        if any(len(rule.thresholds) != total - 1 for rule in self.exits):
            raise ValueError(f"exits: each rule needs {total - 1} thresholds, one for each prefix but the last")

    def _check_member(self, position: int, member: Member) -> None:
        if member.index != position:
            raise ValueError(f"members: entry {position} has index {member.index}")
        if member.combine == "replace" and position != len(self.members) - 1:
            raise ValueError(f"member {position}: only the last member may `replace` the answer")
        logits = member.output(member.logits)
        if logits is not None and logits.shape != (len(self.classes),):
            raise ValueError(f"member {position}: logits have shape {logits.shape} for {len(self.classes)} classes")
        for connection in member.connections:
            self._check_connection(position, connection, self.members)

    def _check_connection(self, position: int, connection: Connection, graphs: Sequence[Member | Chunk]) -> None:
        where = f"member {position}: connection {connection.input!r}"
        if connection.input == self.input.name:
            raise ValueError(f"{where} has the name of the bundle's input")
        if connection.from_member >= position:
            raise ValueError(f"{where} comes from member {connection.from_member}, which does not run before it")
        source = graphs[connection.from_member].output(connection.from_output)
        if source is None:
            raise ValueError(f"{where}: member {connection.from_member} has no output {connection.from_output!r}")
        if (source.dtype, source.shape) != (connection.dtype, connection.shape):
            raise ValueError(
                f"{where} expects {connection.dtype}{list(connection.shape)} "
                f"but member {connection.from_member} gives {source.dtype}{list(source.shape)}"
            )


def valid_name(name: str) -> bool:
    """Whether `name` may be the name of a bundle (and so of a folder)."""
    return re.fullmatch(NAME_PATTERN, name) is not None
