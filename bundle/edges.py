"""What goes into and comes out of a graph. All shapes exclude the batch axis, which is dynamic and comes first."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bundle.record import DType, Record, Shape


class Tensor(Record):
    """A named typed array at a graph edge."""

    name: str
    dtype: DType
    shape: Shape
    """Without the batch axis."""


class Connection(Record):
    """An activation of an earlier member, fed to a later one."""

    input: str
    """Name of the input in this member's graph."""
    from_member: Annotated[int, Field(ge=0)]
    from_output: str
    """Name of the output in the earlier member's graph."""
    dtype: DType
    shape: Shape


class State(Record):
    """What a recurrent member remembers from one chunk of a sequence to the next; all zeros before the first."""

    input: str
    """Name of the input that takes it."""
    output: str
    """Name of the output that gives it after the chunk."""
    dtype: DType
    shape: Shape
