"""Members on a CUDA device: inputs go up once, activations stay, logits alone come back.

What a member leaves behind for later ones is an `OrtValue` of the whole step; each ticket remembers which rows
of it are its own. As long as the same requests step together, the next member reads that tensor as it is;
when the company changes, its rows are gathered on the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from bundle import Bundle, Manifest
from service.engine.executor import forget_unread, outputs_read_later
from service.engine.providers import CUDA, Provider, open_member
from service.engine.rows import RowMover
from service.engine.scheduler import Step
from service.engine.ticket import Logits, Ticket

INPUT = (-1, "input")
"""Where a ticket keeps its input among the activations: uploaded at its first member, read by all."""


@dataclass(frozen=True, slots=True)
class DeviceRows:
    """Rows of a tensor on the device."""

    tensor: ort.OrtValue
    start: int
    stop: int


class BoundMember:
    """One session whose inputs and outputs are bound to device memory."""

    def __init__(self, bundle: Bundle, index: int, provider: Provider, device: str) -> None:
        self._session = open_member(bundle, index, provider)
        manifest = bundle.manifest
        member = manifest.members[index]
        self._device = device
        self.connections = member.connections
        self.forgotten = forget_unread(manifest, index)
        self.kept = outputs_read_later(manifest, index)
        self.logits = member.logits
        self.reads_input = manifest.input.name in {edge.name for edge in self._session.get_inputs()}
        self._fetched = [member.logits, *(name for name in self.kept if name != member.logits)]

    def run(self, inputs: dict[str, ort.OrtValue]) -> dict[str, ort.OrtValue]:
        """The logits and the outputs that later members read, on the device."""
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name in self._fetched:
            binding.bind_output(name, self._device, 0)
        self._session.run_with_iobinding(binding)
        return dict(zip(self._fetched, binding.get_outputs(), strict=True))


class DeviceExecutor:
    """All members of all loaded bundles on one device, through bound memory.

    `device` is onnxruntime's name of the memory, `cuda` in production; the tests run the same code on `cpu`.
    """

    def __init__(self, provider: Provider = CUDA, device: str = "cuda") -> None:
        self.provider = provider[0]
        self._provider, self._device = provider, device
        self._members: dict[str, list[BoundMember]] = {}
        self._manifests: dict[str, Manifest] = {}
        self._mover = RowMover(provider, device)

    def load(self, model: str, bundle: Bundle) -> None:
        """Open one session per member; see `Executor.load`."""
        manifest = bundle.manifest
        members = [BoundMember(bundle, member.index, self._provider, self._device) for member in manifest.members]
        self._manifests[model], self._members[model] = manifest, members

    def unload(self, model: str) -> None:
        """Free the sessions of a model; see `Executor.unload`."""
        self._manifests.pop(model, None)
        self._members.pop(model, None)

    def detach(self, ticket: Ticket) -> None:
        """Copy rows out of tensors that others share; see `Executor.detach`."""
        for key, rows in ticket.activations.items():
            ticket.activations[key] = DeviceRows(self._select(rows), 0, ticket.rows)

    def run(self, step: Step) -> Logits:
        """Run one step; see `Executor.run`."""
        member, manifest = self._members[step.model][step.member], self._manifests[step.model]
        outputs = member.run(self._gather(step, member, manifest) if step.tickets else self._zeros(step, manifest))
        start = 0
        for ticket in step.tickets:
            stop = start + ticket.rows
            for name in member.kept:
                ticket.activations[step.member, name] = DeviceRows(outputs[name], start, stop)
            for key in member.forgotten:
                del ticket.activations[key]
            start = stop
        logits: Logits = outputs[member.logits].numpy()
        return logits

    def _gather(self, step: Step, member: BoundMember, manifest: Manifest) -> dict[str, ort.OrtValue]:
        """What the member reads, for the rows of the step's tickets."""
        keys = {link.input: (link.from_member, link.from_output) for link in member.connections}
        if member.reads_input:
            self._upload(step)
            keys[manifest.input.name] = INPUT
        return {
            name: self._assemble([ticket.activations[key] for ticket in step.tickets]) for name, key in keys.items()
        }

    def _upload(self, step: Step) -> None:
        """Bring the inputs of newcomers to the device, all in one tensor."""
        fresh = [ticket for ticket in step.tickets if INPUT not in ticket.activations]
        if not fresh:
            return
        tensor = self._to_device(np.concatenate([ticket.inputs for ticket in fresh]))
        start = 0
        for ticket in fresh:
            ticket.activations[INPUT] = DeviceRows(tensor, start, start + ticket.rows)
            start += ticket.rows

    def _assemble(self, parts: list[DeviceRows]) -> ort.OrtValue:
        """One tensor with the rows of all parts; no copy when they are one whole tensor already."""
        first, *others = [self._select(run) for run in consecutive(parts)]
        for other in others:
            first = self._mover.join(first, other)
        return first

    def _select(self, rows: DeviceRows) -> ort.OrtValue:
        if (rows.start, rows.stop) == (0, rows.tensor.shape()[0]):
            return rows.tensor
        return self._mover.gather(rows.tensor, range(rows.start, rows.stop))

    def _zeros(self, step: Step, manifest: Manifest) -> dict[str, ort.OrtValue]:
        member = self._members[step.model][step.member]
        shapes = {link.input: (link.shape, link.dtype) for link in member.connections}
        if member.reads_input:
            shapes[manifest.input.name] = (manifest.input.shape, manifest.input.dtype)
        return {name: self._to_device(np.zeros((step.rows, *shape), dtype)) for name, (shape, dtype) in shapes.items()}

    def _to_device(self, array: npt.NDArray[Any]) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._device, 0)


def consecutive(parts: list[DeviceRows]) -> list[DeviceRows]:
    """Parts that follow each other in the same tensor become one."""
    runs: list[DeviceRows] = []
    for part in parts:
        if runs and runs[-1].tensor is part.tensor and runs[-1].stop == part.start:
            runs[-1] = DeviceRows(part.tensor, runs[-1].start, part.stop)
        else:
            runs.append(part)
    return runs
