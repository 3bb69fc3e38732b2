"""A member's graph for a stream: some steps of the sequence at a time, its state in and out.

Of a sequence of T steps the graph takes ``Manifest.chunk_steps`` at once. Its connections read the chunk outputs that
earlier members gave for the *same* steps, its states what it gave itself for the steps before. Run over all T
steps, it ends with the logits that the member's own graph gives for the whole sequence.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Self

from pydantic import Field, model_validator

from bundle.edges import Connection, State, Tensor
from bundle.record import Record, Sha256


class Chunk(Record):
    """One ONNX graph beside a recurrent member's."""

    file: str
    sha256: Sha256
    connections: tuple[Connection, ...] = ()
    """To chunk graphs of earlier members."""
    states: Annotated[tuple[State, ...], Field(min_length=1)]
    logits: str
    """Name of the output that holds the logits (batch, classes) after the last step of the chunk."""
    outputs: tuple[Tensor, ...]
    """Every output of the graph but the states, logits included."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if PurePosixPath(self.file).name != self.file or self.file in {"", ".", ".."}:
            raise ValueError(f"chunk: file {self.file!r} must be a plain file name")
        names = [*(output.name for output in self.outputs), *(state.output for state in self.states)]
        if len(set(names)) != len(names):
            raise ValueError(f"chunk {self.file}: two outputs have the same name")
        if self.output(self.logits) is None:
            raise ValueError(f"chunk {self.file}: logits {self.logits!r} is not among its outputs")
        inputs = [*(link.input for link in self.connections), *(state.input for state in self.states)]
        if len(set(inputs)) != len(inputs):
            raise ValueError(f"chunk {self.file}: two connections or states feed the same input")
        return self

    def output(self, name: str) -> Tensor | None:
        """The output called `name`, or None; states are not among them."""
        return next((output for output in self.outputs if output.name == name), None)
