"""Members on the CPU, one after the other or side by side."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from bundle import Bundle
from service.engine.chunks import ChunkMember
from service.engine.cores import compute_threads
from service.engine.executor import Fusion
from service.engine.fused import CpuFusion
from service.engine.host_rows import HostRows
from service.engine.lanes import CpuLanes
from service.engine.member import CpuMember
from service.engine.own_core import like_the_process
from service.engine.providers import CPU
from service.engine.spread import SpreadMember
from service.engine.step import Step
from service.engine.stream import stream_key
from service.engine.threaded import ThreadedMember
from service.engine.ticket import Logits, Rows, Ticket


class CpuExecutor:
    """All members of all loaded bundles on the CPU.

    Args:
        threads: that may compute at once; None: as `compute_threads` says.
        side_by_side: whether waves may be run; that takes two threads at least.
    """

    provider = CPU[0]
    halts = True
    ungraphed = 0

    def __init__(self, threads: int | None = None, *, side_by_side: bool = False) -> None:
        self.threads = threads or compute_threads()
        self._members: dict[str, list[ThreadedMember]] = {}
        """Of each model; chunk graphs are a model of their own."""
        self._pool = ThreadPoolExecutor(max(1, self.threads - 1), "rows", like_the_process)
        self._lanes = CpuLanes(self.threads) if side_by_side and self.threads > 1 else None
        self._fusion = CpuFusion()

    @property
    def lanes(self) -> CpuLanes | None:
        """Where waves run; see `Executor.lanes`."""
        return self._lanes

    @property
    def fusion(self) -> Fusion | None:
        """Where groups run; see `Executor.fusion`."""
        return self._fusion

    def load(self, model: str, bundle: Bundle) -> None:
        """Open sessions with one thread and with all, and one to run beside others; see `Executor.load`."""
        members = [self._open(bundle, member.index) for member in bundle.manifest.members]
        chunks = [self._open_chunk(bundle, index) for index in range(len(bundle.manifest.streaming))]
        if self._lanes is not None:
            self._lanes.load(model, bundle)
        self._members[model] = members
        if chunks:
            self._members[stream_key(model)] = chunks

    def _open(self, bundle: Bundle, index: int) -> ThreadedMember:
        one = CpuMember(bundle, index, 1)
        if self.threads == 1:
            return ThreadedMember([one])
        several = CpuMember(bundle, index, self.threads)
        return ThreadedMember([one, SpreadMember(one, several, self._pool, self.threads), several])

    def _open_chunk(self, bundle: Bundle, index: int) -> ThreadedMember:
        return ThreadedMember([ChunkMember(bundle, index, CPU, count) for count in sorted({1, self.threads})])

    def unload(self, model: str) -> None:
        """Free the sessions of a model; see `Executor.unload`."""
        self._members.pop(model, None)
        self._members.pop(stream_key(model), None)
        self._fusion.unload(model)
        if self._lanes is not None:
            self._lanes.unload(model)

    def detach(self, ticket: Ticket) -> None:
        """Copy what is part of a larger array; see `Executor.detach`."""
        for key, held in ticket.activations.items():
            if len(held.rows) < len(held.array):
                ticket.activations[key] = HostRows(held.rows.copy(), 0, len(held.rows))

    def run(self, step: Step) -> Logits:
        """Run one step; see `Executor.run`."""
        return self._members[step.model][step.member].run(step)

    def ways(self, model: str, member: int) -> int:
        """On one thread, and on all of them with rows or operators shared out; see `Executor.ways`."""
        return len(self._members[model][member].ways)

    def choose(self, step: Step, way: int) -> None:
        """See `Executor.choose`."""
        self._members[step.model][step.member].choose(step.rows, way)

    def retain(self, ticket: Ticket, rows: Rows) -> None:
        """Narrow a ticket's activations; see `Executor.retain`."""
        for key, held in ticket.activations.items():
            ticket.activations[key] = HostRows(held.rows[rows], 0, len(rows))
