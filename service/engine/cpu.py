"""Members on the CPU: numpy arrays in and out."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from bundle import Bundle, Manifest
from service.engine.chunks import ChunkMember
from service.engine.providers import CPU, open_member
from service.engine.scheduler import Step
from service.engine.stream import stream_key
from service.engine.ticket import Logits, Rows, Ticket
from service.engine.wiring import forget_unread, outputs_read_later

Array = npt.NDArray[Any]


class CpuMember:
    """One session, and which arrays go in and out of it."""

    def __init__(self, bundle: Bundle, index: int, threads: int) -> None:
        self._session = open_member(bundle, index, CPU, threads)
        member = bundle.manifest.members[index]
        self._index = index
        self._links = member.connections
        self._kept = outputs_read_later(bundle.manifest.members, index)
        self._forgotten = forget_unread(bundle.manifest.members, index)
        self._fetched = [member.logits, *(name for name in self._kept if name != member.logits)]
        names = {edge.name for edge in self._session.get_inputs()}
        self._input = bundle.manifest.input.name if bundle.manifest.input.name in names else None

    def run(self, step: Step) -> Logits:
        """Run on the rows of the step's tickets; see `Executor.run`."""
        feed = {
            link.input: _stack([ticket.activations[link.from_member, link.from_output] for ticket in step.tickets])
            for link in self._links
        }
        if self._input is not None:
            feed[self._input] = _stack([ticket.inputs for ticket in step.tickets])
        outputs = dict(zip(self._fetched, self._session.run(self._fetched, feed), strict=True))
        self._hand_out(step, outputs)
        logits: Logits = outputs[self._fetched[0]]
        return logits

    def rehearse(self, manifest: Manifest, rows: int) -> Logits:
        """Run on zeros."""
        feed = {link.input: np.zeros((rows, *link.shape), link.dtype) for link in self._links}
        if self._input is not None:
            feed[self._input] = np.zeros((rows, *manifest.input.shape), manifest.input.dtype)
        logits: Logits = self._session.run(self._fetched[:1], feed)[0]
        return logits

    def _hand_out(self, step: Step, outputs: dict[str, Array]) -> None:
        start = 0
        for ticket in step.tickets:
            rows = slice(start, start + ticket.rows)
            for name in self._kept:
                ticket.activations[self._index, name] = outputs[name][rows]
            for key in self._forgotten:
                del ticket.activations[key]
            start += ticket.rows


class CpuExecutor:
    """All members of all loaded bundles on the CPU."""

    provider = CPU[0]
    ungraphed = 0

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or max(1, (os.cpu_count() or 1) - 1)
        self._members: dict[str, list[CpuMember]] = {}
        self._manifests: dict[str, Manifest] = {}
        self._chunks: dict[str, list[ChunkMember]] = {}

    def load(self, model: str, bundle: Bundle) -> None:
        """Open one session per member; see `Executor.load`."""
        members = [CpuMember(bundle, member.index, self._threads) for member in bundle.manifest.members]
        chunks = [ChunkMember(bundle, index, CPU, self._threads) for index in range(len(bundle.manifest.streaming))]
        self._manifests[model], self._members[model] = bundle.manifest, members
        self._chunks[stream_key(model)] = chunks

    def unload(self, model: str) -> None:
        """Free the sessions of a model; see `Executor.unload`."""
        self._manifests.pop(model, None)
        self._members.pop(model, None)
        self._chunks.pop(stream_key(model), None)

    def detach(self, ticket: Ticket) -> None:
        """Copy what are views of larger arrays; see `Executor.detach`."""
        for key, rows in ticket.activations.items():
            if rows.base is not None:
                ticket.activations[key] = rows.copy()

    def run(self, step: Step) -> Logits:
        """Run one step; see `Executor.run`."""
        if step.model in self._chunks:
            return self._chunks[step.model][step.member].run(step)
        member = self._members[step.model][step.member]
        return member.run(step) if step.tickets else member.rehearse(self._manifests[step.model], step.rows)

    def retain(self, ticket: Ticket, rows: Rows) -> None:
        """Narrow a ticket's activations; see `Executor.retain`."""
        ticket.activations = {key: values[rows] for key, values in ticket.activations.items()}


def _stack(parts: list[Array]) -> Array:
    """Rows of all parts, one under the other; a single part is passed on without a copy."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
