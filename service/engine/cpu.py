"""Members on the CPU, one after the other or side by side."""

from __future__ import annotations

import os

from bundle import Bundle
from service.engine.chunks import ChunkMember
from service.engine.lanes import CpuLanes
from service.engine.member import CpuMember
from service.engine.providers import CPU
from service.engine.step import Step
from service.engine.stream import stream_key
from service.engine.ticket import Logits, Rows, Ticket


class CpuExecutor:
    """All members of all loaded bundles on the CPU.

    Args:
        threads: that may compute at once; None leaves one core to others.
        side_by_side: whether waves may be run; that takes two threads at least.
    """

    provider = CPU[0]
    ungraphed = 0

    def __init__(self, threads: int | None = None, *, side_by_side: bool = False) -> None:
        self._threads = threads or max(1, (os.cpu_count() or 1) - 1)
        self._members: dict[str, list[CpuMember]] = {}
        self._chunks: dict[str, list[ChunkMember]] = {}
        self._lanes = CpuLanes(self._threads) if side_by_side and self._threads > 1 else None

    @property
    def lanes(self) -> CpuLanes | None:
        """Where waves run; see `Executor.lanes`."""
        return self._lanes

    def load(self, model: str, bundle: Bundle) -> None:
        """Open one session per member, and one more where it may run beside others; see `Executor.load`."""
        members = [CpuMember(bundle, member.index, self._threads) for member in bundle.manifest.members]
        chunks = [ChunkMember(bundle, index, CPU, self._threads) for index in range(len(bundle.manifest.streaming))]
        if self._lanes is not None:
            self._lanes.load(model, bundle)
        self._members[model], self._chunks[stream_key(model)] = members, chunks

    def unload(self, model: str) -> None:
        """Free the sessions of a model; see `Executor.unload`."""
        self._members.pop(model, None)
        self._chunks.pop(stream_key(model), None)
        if self._lanes is not None:
            self._lanes.unload(model)

    def detach(self, ticket: Ticket) -> None:
        """Copy what are views of larger arrays; see `Executor.detach`."""
        for key, rows in ticket.activations.items():
            if rows.base is not None:
                ticket.activations[key] = rows.copy()

    def run(self, step: Step) -> Logits:
        """Run one step; see `Executor.run`."""
        if step.model in self._chunks:
            return self._chunks[step.model][step.member].run(step)
        return self._members[step.model][step.member].run(step)

    def retain(self, ticket: Ticket, rows: Rows) -> None:
        """Narrow a ticket's activations; see `Executor.retain`."""
        ticket.activations = {key: values[rows] for key, values in ticket.activations.items()}
