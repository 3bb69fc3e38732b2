"""One member whose inputs and outputs are bound to device memory."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from bundle import Bundle, InvalidBundle
from service.engine.providers import Provider, first_line, open_member, with_graphs
from service.engine.slots import INPUT, Captures, Key, Slot
from service.engine.wiring import forget_unread, outputs_read_later

log = logging.getLogger(__name__)

CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
"""Operators whose course depends on data: a graph replays one course."""


class BoundMember:
    """A session, run in fixed slots (as a CUDA graph where that works) or on tensors of any size."""

    def __init__(self, bundle: Bundle, index: int, provider: Provider, device: str) -> None:
        manifest = bundle.manifest
        member = manifest.members[index]
        self._bundle, self._index = bundle, index
        self._provider, self._device = provider, device
        self._session, self._captures = self._open()
        self._bindings: dict[int, ort.IOBinding] = {}
        self.connections = member.connections
        self.forgotten = forget_unread(manifest.members, index)
        self.kept = outputs_read_later(manifest.members, index)
        self.logits = member.logits
        self.input = manifest.input.name
        self.reads_input = self.input in {edge.name for edge in self._session.get_inputs()}
        self._outputs = {output.name: output for output in member.outputs}
        self._fetched = [member.logits, *(name for name in self.kept if name != member.logits)]

    @property
    def graphed(self) -> bool:
        """Whether it runs as CUDA graphs."""
        return self._captures.enabled

    def run_in(self, slot: Slot, *, rehearsing: bool) -> None:
        """Run on the slot's tensors, into the slot's tensors; in a rehearsal a graph may be captured."""
        graph_id = self._captures.next_id(slot, rehearsing=rehearsing)
        if graph_id == -1 or slot.bucket in self._captures.captured:
            self._session.run_with_iobinding(self._binding(slot), run_options(graph_id))
            return
        try:
            self._session.run_with_iobinding(self._binding(slot), run_options(graph_id))
        except Exception as error:
            # onnxruntime raises bare exceptions; whatever hindered the capture, the plain session may do.
            self._give_up_graphs(f"the capture failed: {first_line(error)}")
            self._session.run_with_iobinding(self._binding(slot), run_options(-1))
        else:
            self._captures.captured.add(slot.bucket)

    def run_on(self, inputs: dict[str, ort.OrtValue], rows: int) -> dict[str, ort.OrtValue]:
        """Run on tensors of any number of rows: the logits and the outputs that later members read."""
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        outputs = {name: self._room(name, rows) for name in self._fetched}
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value)
        self._session.run_with_iobinding(binding, run_options(-1))
        return outputs

    def written(self) -> list[Key]:
        """Tensors of a slot that a run overwrites."""
        return [(self._index, name) for name in self._fetched]

    def _room(self, name: str, rows: int) -> ort.OrtValue:
        """A tensor for an output that is read after the run.

        Not of the session's own arena: graphs write to its memory that was free while they were captured.
        """
        output = self._outputs[name]
        return ort.OrtValue.ortvalue_from_shape_and_type((rows, *output.shape), np.dtype(output.dtype), self._device, 0)

    def _binding(self, slot: Slot) -> ort.IOBinding:
        """The session's binding to a slot: one for all runs of a graph, which is replayed on its addresses.

        Without graphs, a new one for each run: some nodes may run on the CPU then, and what these read is copied from
        the device when it is bound, not when it is run.
        """
        if not self.graphed:
            return self._bind(slot)
        if slot.bucket not in self._bindings:
            self._bindings[slot.bucket] = self._bind(slot)
        return self._bindings[slot.bucket]

    def _bind(self, slot: Slot) -> ort.IOBinding:
        binding = self._session.io_binding()
        for link in self.connections:
            binding.bind_ortvalue_input(link.input, slot.tensors[link.from_member, link.from_output])
        if self.reads_input:
            binding.bind_ortvalue_input(self.input, slot.tensors[INPUT])
        for key in self.written():
            binding.bind_ortvalue_output(key[1], slot.tensors[key])
        return binding

    def _open(self) -> tuple[ort.InferenceSession, Captures]:
        graphs = with_graphs(self._provider)
        path = self._bundle.graph(self._index)
        if graphs is not None and not has_control_flow(path):
            try:
                return open_member(self._bundle, self._index, graphs), Captures(enabled=True)
            except InvalidBundle as error:
                self._warn(str(error))
        elif graphs is not None:
            self._warn("its course depends on data (If, Loop or Scan)")
        return open_member(self._bundle, self._index, self._provider), Captures(enabled=False)

    def _give_up_graphs(self, reason: str) -> None:
        self._warn(reason)
        # First, for there may be no memory for another session: the old one may hold a part of a graph as a whole one.
        self._captures = Captures(enabled=False)
        self._bindings.clear()
        self._session = open_member(self._bundle, self._index, self._provider)

    def _warn(self, reason: str) -> None:
        manifest = self._bundle.manifest
        log.warning(
            "member %d of %s/%d runs without CUDA graphs: %s", self._index, manifest.name, manifest.version, reason
        )


def run_options(graph_id: int) -> ort.RunOptions:
    """Options that name the graph; -1 for a plain run. Without the entry, onnxruntime searches it by an exception."""
    if graph_id not in _OPTIONS:
        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(graph_id))
        _OPTIONS[graph_id] = options
    return _OPTIONS[graph_id]


_OPTIONS: dict[int, ort.RunOptions] = {}


def has_control_flow(path: Path) -> bool:
    """Whether the course of an ONNX graph depends on data."""
    model = onnx.load(path, load_external_data=False)
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    return any(node.op_type in CONTROL_FLOW for node in nodes)
