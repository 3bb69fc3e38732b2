"""A member's chunk graph on a device: some steps of many streams at once, each with its own state.

Streams in one batch may be at different chunks of their sequences: a graph knows of no time but its state. States
live on the host between runs, also where the graph runs on a GPU: a stream is idle most of the time, and its few
kilobytes travel with its chunk.
"""

from __future__ import annotations

import numpy as np

from bundle import Bundle
from service.engine.host_rows import stack
from service.engine.providers import Provider, open_chunk
from service.engine.step import Step
from service.engine.stream import Array
from service.engine.ticket import Logits


class ChunkMember:
    """One session, and what goes in and out of it."""

    def __init__(self, bundle: Bundle, index: int, provider: Provider, threads: int = 1) -> None:
        self._session = open_chunk(bundle, index, provider, threads)
        manifest = bundle.manifest
        chunk = manifest.streaming[index]
        raw = manifest.chunk_input
        links = {link.input: (link.dtype, link.shape) for link in chunk.connections}
        states = {state.input: (state.dtype, state.shape) for state in chunk.states}
        shapes = {raw.name: (raw.dtype, raw.shape), **links, **states}
        # A graph may leave out the bundle's input.
        self._inputs = {edge.name: shapes[edge.name] for edge in self._session.get_inputs()}
        self._outputs = [edge.name for edge in self._session.get_outputs()]
        self._logits = chunk.logits

    def run(self, step: Step) -> Logits:
        """Run each ticket's stream one chunk on; without tickets on zeros. Logits (rows, classes)."""
        streams = [ticket.part.stream for ticket in step.tickets if ticket.part is not None]
        if streams:
            reads = [stream.read(step.member) for stream in streams]
            feed = {name: stack([read[name] for read in reads]) for name in self._inputs}
        else:
            feed = {name: np.zeros((step.rows, *shape), dtype) for name, (dtype, shape) in self._inputs.items()}
        found = dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))
        for row, stream in enumerate(streams):
            stream.stage({name: _own(values, row) for name, values in found.items()})
        logits: Logits = found[self._logits]
        return logits


def _own(values: Array, row: int) -> Array:
    """One row, not keeping the others of its batch in memory."""
    return values if len(values) == 1 else values[row : row + 1].copy()
