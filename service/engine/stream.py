"""A sequence that comes in chunks: what each recurrent member remembers of it, and how far each has come.

A member's answer to a chunk needs its state after the chunks before. When a deadline left it no time for one of
these, it is *behind*, and must first run those that it missed, in order: the state is then what it would have been.
For that the stream keeps the missed chunks, and what earlier members gave for them, until their last reader has come
by. Members are run in order, so none is ahead of an earlier one, and what a run reads is always there.

    member 0   1 2 3 4 5     after chunk 5 the answer is that of one member; member 1 owes
    member 1   1 2 3         two runs, member 2 four, and then the answer to chunk 5 is that
    member 2   1             of all three, to the digits that running them in step would have given

A run changes nothing until it is found good (`Part.advance`), so a failed one can be tried again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bundle import Manifest
from service.engine.wiring import forget_unread, outputs_read_later

Array = npt.NDArray[Any]


def stream_key(model: str) -> str:
    """What the engine and the metrics call the chunk graphs of a deployment, `name/version/stream`."""
    return f"{model}/stream"


class Stream:
    """One sequence. The event loop brings chunks; all else belongs to the thread that owns the device.

    Args:
        manifest: of a bundle with chunk graphs.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._graphs = manifest.streaming
        self._input = manifest.input.name
        self._kept = [outputs_read_later(self._graphs, index) for index in range(len(self._graphs))]
        self._forgotten = [forget_unread(self._graphs, index) for index in range(len(self._graphs))]
        self._chunks: list[Array | None] = []
        self._states: list[Mapping[str, Array]] = [
            {state.input: np.zeros((1, *state.shape), state.dtype) for state in graph.states} for graph in self._graphs
        ]
        self._activations: dict[tuple[int, int, str], Array] = {}
        self._staged: Mapping[str, Array] = {}
        self.done = [0] * len(self._graphs)
        """Chunks that each member has run; never increasing."""

    def extend(self, chunk: Array) -> Part:
        """One more chunk has come, (1, chunk_steps, ...): the sequence up to its end."""
        self._chunks.append(chunk)
        return Part(self, len(self._chunks))

    @property
    def chunks(self) -> int:
        """Chunks that have come."""
        return len(self._chunks)

    @property
    def held_bytes(self) -> int:
        """What chunks, activations and states take now."""
        states = [value for state in self._states for value in state.values()]
        chunks = [chunk for chunk in self._chunks if chunk is not None]
        return sum(value.nbytes for value in (*states, *chunks, *self._activations.values()))

    def read(self, member: int) -> dict[str, Array]:
        """What the next run of a member is fed, by name of the input; one row each."""
        now, graph = self.done[member], self._graphs[member]
        chunk = self._chunks[now]
        assert chunk is not None
        links = {link.input: self._activations[now, link.from_member, link.from_output] for link in graph.connections}
        return {self._input: chunk, **links, **self._states[member]}

    def stage(self, found: Mapping[str, Array]) -> None:
        """What a run gave, by name of the output; one row each. Nothing has changed before `commit`."""
        self._staged = found

    def commit(self, member: int) -> None:
        """Take the staged outputs for the member's next chunk: it has come that much further."""
        found, self._staged = self._staged, {}
        now, graph = self.done[member], self._graphs[member]
        self._states[member] = {state.input: found[state.output] for state in graph.states}
        for name in self._kept[member]:
            self._activations[now, member, name] = found[name]
        for source, name in self._forgotten[member]:
            del self._activations[now, source, name]
        self.done[member] += 1
        if member == len(self.done) - 1:
            self._chunks[now] = None


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A stream up to the end of one chunk: what the request for that chunk's answer is about."""

    stream: Stream
    chunks: int

    def price(self, seconds: Sequence[float]) -> list[float]:
        """Seconds until each member's answer, all its missed runs included, of the seconds of one run each."""
        return [self.runs(member) * each for member, each in enumerate(seconds)]

    def runs(self, member: int) -> int:
        """Runs of a member until its answer to the chunk."""
        return self.chunks - self.stream.done[member]

    def advance(self, member: int) -> bool:
        """The member's staged run is good; whether that was the run of this chunk, so that its logits count."""
        self.stream.commit(member)
        return self.stream.done[member] == self.chunks


def stream_bytes(manifest: Manifest) -> int:
    """The most that a stream can hold: the whole sequence, and all of it still to be read by the last member."""
    assert manifest.chunk_steps is not None
    chunks = manifest.input.shape[0] // manifest.chunk_steps
    graphs = manifest.streaming
    whole = chunks * _bytes(manifest.chunk_input.dtype, manifest.chunk_input.shape)
    states = sum(_bytes(state.dtype, state.shape) for graph in graphs for state in graph.states)
    kept = sum(
        _bytes(output.dtype, output.shape)
        for index, graph in enumerate(graphs)
        for output in graph.outputs
        if output.name in outputs_read_later(graphs, index)
    )
    return whole + states + chunks * kept


def _bytes(dtype: str, shape: Sequence[int]) -> int:
    return np.dtype(dtype).itemsize * math.prod(shape)
