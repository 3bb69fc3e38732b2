"""Members on a CUDA device: inputs go up, activations stay, logits alone come back.

Steps run in slots of fixed memory; see `service.engine.slots`. A step that no bucket holds runs on tensors of its
own size, without graphs. Each ticket remembers, for every activation, which rows of which tensor are its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from bundle import Bundle, Manifest
from service.engine.bound import BoundMember
from service.engine.chunks import ChunkMember
from service.engine.providers import CUDA, Provider, without_limit
from service.engine.rows import RowMover
from service.engine.slots import BUCKETS, INPUT, DeviceRows, Key, Slot, bucket_of, consecutive, padded
from service.engine.step import Step
from service.engine.stream import stream_key
from service.engine.ticket import Logits, Rows, Ticket


class _Model:
    """A loaded bundle: its members, and the slots that have been needed so far."""

    def __init__(self, bundle: Bundle, provider: Provider, device: str) -> None:
        self.manifest: Manifest = bundle.manifest
        self.members = [BoundMember(bundle, member.index, provider, device) for member in bundle.manifest.members]
        self._device = device
        self._slots: dict[int, Slot] = {}

    def slot(self, rows: int) -> Slot | None:
        """The slot for a step of `rows` rows; None if it is too large for any."""
        bucket = bucket_of(rows)
        if bucket is None:
            return None
        if bucket not in self._slots:
            self._slots[bucket] = Slot(self.manifest, bucket, BUCKETS.index(bucket), self._device)
        return self._slots[bucket]

    def slots(self) -> list[Slot]:
        """The slots that have been needed so far."""
        return list(self._slots.values())


class DeviceExecutor:
    """All members of all loaded bundles on one device, through bound memory.

    `device` is onnxruntime's name of the memory, `cuda` in production; the tests run the same code on `cpu`.
    """

    def __init__(self, provider: Provider = CUDA, device: str = "cuda") -> None:
        self.provider = provider[0]
        # All sessions share one stream, on which nothing overlaps.
        self.lanes = None
        # The graphs of members that follow each other are replayed without a gap.
        self.fusion = None
        # A graph is replayed to its end.
        self.halts = False
        self.threads = 1
        self._provider, self._device = provider, device
        self._models: dict[str, _Model] = {}
        self._chunks: dict[str, list[ChunkMember]] = {}
        # What it moves out of the slots is held in its arenas for as long as requests need it, or are kept.
        self._mover = RowMover(without_limit(provider), device)

    @property
    def ungraphed(self) -> int:
        """Members that run without CUDA graphs."""
        return sum(not member.graphed for model in list(self._models.values()) for member in model.members)

    def load(self, model: str, bundle: Bundle) -> None:
        """Open one session per member; see `Executor.load`."""
        loaded = _Model(bundle, self._provider, self._device)
        for link in (link for member in bundle.manifest.members for link in member.connections):
            self._mover.prepare(self._to_device(np.zeros((1, *link.shape), link.dtype)))
        chunks = [ChunkMember(bundle, index, self._provider) for index in range(len(bundle.manifest.streaming))]
        self._models[model], self._chunks[stream_key(model)] = loaded, chunks

    def ways(self, model: str, member: int) -> int:
        """One; see `Executor.ways`."""
        return 1

    def choose(self, step: Step, way: int) -> None:
        """Nothing to choose; see `Executor.choose`."""

    def unload(self, model: str) -> None:
        """Free the sessions and slots of a model; see `Executor.unload`."""
        self._models.pop(model, None)
        self._chunks.pop(stream_key(model), None)

    def detach(self, ticket: Ticket) -> None:
        """Copy rows out of tensors that others share; see `Executor.detach`."""
        for key, rows in ticket.activations.items():
            ticket.activations[key] = self._own(rows)

    def run(self, step: Step) -> Logits:
        """Run one step; see `Executor.run`."""
        if step.model in self._chunks:
            return self._chunks[step.model][step.member].run(step)
        model = self._models[step.model]
        member = model.members[step.member]
        slot = model.slot(step.rows)
        logits = self._run_loose(step, member, model) if slot is None else self._run_in(slot, step, member)
        for ticket in step.tickets:
            for key in member.forgotten:
                del ticket.activations[key]
        return logits

    def _run_in(self, slot: Slot, step: Step, member: BoundMember) -> Logits:
        if step.tickets:
            if member.reads_input and not slot.holds(INPUT, step.tickets):
                slot.fill(INPUT, np.concatenate([ticket.inputs for ticket in step.tickets]))
                slot.settle(INPUT, step.tickets)
            for link in member.connections:
                self._move_in(slot, (link.from_member, link.from_output), step.tickets)
        for key in member.written():
            self._move_out(slot, key, staying=())
        member.run_in(slot, rehearsing=not step.tickets)
        for name in member.kept:
            self._settle(slot, (step.member, name), step.tickets)
        logits: Logits = slot.tensors[step.member, member.logits].numpy()[: step.rows]
        return logits

    def _move_in(self, slot: Slot, key: Key, tickets: Sequence[Ticket]) -> None:
        """See to it that a tensor of the slot holds the rows of these requests, from row 0 on."""
        parts = [ticket.activations[key] for ticket in tickets]
        runs = consecutive(parts)
        target = slot.tensors[key]
        if len(runs) == 1 and runs[0].tensor is target and runs[0].start == 0:
            return
        # Never the target itself: a part of a tensor is copied out of it, and the whole of it would be in place.
        source = self._join(runs)
        self._move_out(slot, key, staying=tickets)
        self._mover.gather(source, padded(range(sum(ticket.rows for ticket in tickets)), slot.bucket), into=target)
        self._settle(slot, key, tickets)

    def _move_out(self, slot: Slot, key: Key, staying: Sequence[Ticket]) -> None:
        """Copy out the rows of those who still need what a tensor holds and are about to lose it."""
        for ticket in slot.residents(key):
            rows = ticket.activations.get(key)
            needed = ticket.ended is None or ticket.keep
            if needed and ticket not in staying and rows is not None and rows.tensor is slot.tensors[key]:
                ticket.activations[key] = self._own(rows)
        slot.settle(key, ())

    def _settle(self, slot: Slot, key: Key, tickets: Sequence[Ticket]) -> None:
        for ticket, rows in zip(tickets, slot.rows_of(key, tickets), strict=True):
            ticket.activations[key] = rows
        slot.settle(key, tickets)

    def _run_loose(self, step: Step, member: BoundMember, model: _Model) -> Logits:
        """A step that is too large for any bucket, on tensors of its own."""
        manifest = model.manifest
        inputs: dict[str, ort.OrtValue] = {}
        if member.reads_input:
            zeros = np.zeros((step.rows, *manifest.input.shape), manifest.input.dtype)
            rows = np.concatenate([ticket.inputs for ticket in step.tickets]) if step.tickets else zeros
            inputs[manifest.input.name] = self._to_device(rows)
        for link in member.connections:
            parts = [ticket.activations[link.from_member, link.from_output] for ticket in step.tickets]
            inputs[link.input] = (
                self._join(consecutive(parts))
                if parts
                else self._to_device(np.zeros((step.rows, *link.shape), link.dtype))
            )
        outputs = member.run_on(inputs, step.rows)
        start = 0
        for ticket in step.tickets:
            for name in member.kept:
                ticket.activations[step.member, name] = DeviceRows(outputs[name], start, start + ticket.rows)
            start += ticket.rows
        logits: Logits = outputs[member.logits].numpy()
        return logits

    def retain(self, ticket: Ticket, rows: Rows) -> None:
        """Narrow a ticket's activations; see `Executor.retain`."""
        if ticket.part is not None:
            # What there is of a stream is the stream's, and on the host.
            return
        for slot in self._models[ticket.model].slots():
            if ticket in slot.residents(INPUT):
                # It holds the rows that have left too.
                slot.settle(INPUT, ())
        if not len(rows):
            ticket.activations.clear()
        for key, held in ticket.activations.items():
            kept = self._mover.gather(held.tensor, (held.start + rows).tolist())
            ticket.activations[key] = DeviceRows(kept, 0, len(rows))

    def _join(self, runs: Sequence[DeviceRows]) -> ort.OrtValue:
        """One tensor with the rows of all runs; no copy when they are one whole tensor already."""
        first, *others = [self._select(run) for run in runs]
        for other in others:
            first = self._mover.join(first, other)
        return first

    def _select(self, rows: DeviceRows) -> ort.OrtValue:
        whole = (rows.start, rows.stop) == (0, rows.tensor.shape()[0])
        return rows.tensor if whole else self._mover.gather(rows.tensor, range(rows.start, rows.stop))

    def _own(self, rows: DeviceRows) -> DeviceRows:
        """The same rows in a tensor that holds nothing else and that nobody writes."""
        tensor = self._mover.gather(rows.tensor, range(rows.start, rows.stop))
        return DeviceRows(tensor, 0, rows.stop - rows.start)

    def _to_device(self, array: npt.NDArray[Any]) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._device, 0)
