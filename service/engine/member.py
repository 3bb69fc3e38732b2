"""One member on the CPU: numpy arrays in and out."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort

from bundle import Bundle
from service.engine.halt import Halt
from service.engine.host_rows import Array, HostRows, gather, stack
from service.engine.providers import CPU, open_member
from service.engine.step import Step
from service.engine.ticket import Logits
from service.engine.wiring import forget_unread, outputs_read_later

Arrays = dict[str, Array]


class CpuMember:
    """One session, and which arrays go in and out of it."""

    def __init__(self, bundle: Bundle, index: int, threads: int) -> None:
        self._session = open_member(bundle, index, CPU, threads)
        member = bundle.manifest.members[index]
        self._index = index
        self._links = member.connections
        self._kept = outputs_read_later(bundle.manifest.members, index)
        self._forgotten = forget_unread(bundle.manifest.members, index)
        self.logits = member.logits
        self._fetched = [member.logits, *(name for name in self._kept if name != member.logits)]
        self._outputs = {output.name: output for output in member.outputs}
        names = {edge.name for edge in self._session.get_inputs()}
        self._input = bundle.manifest.input if bundle.manifest.input.name in names else None

    def run(self, step: Step) -> Logits:
        """Run on the rows of the step's tickets; see `Executor.run`."""
        outputs = self.compute(self.feed(step), whole=bool(step.tickets), halt=step.halt)
        self.hand_out(step, outputs)
        logits: Logits = outputs[self.logits]
        return logits

    def feed(self, step: Step) -> Arrays:
        """What the session reads, by name: the rows of the step's tickets, or zeros if it has none."""
        if not step.tickets:
            edges = [(link.input, link.shape, link.dtype) for link in self._links]
            if self._input is not None:
                edges.append((self._input.name, self._input.shape, self._input.dtype))
            return {name: np.zeros((step.rows, *shape), dtype) for name, shape, dtype in edges}
        feed = {
            link.input: gather([ticket.activations[link.from_member, link.from_output] for ticket in step.tickets])
            for link in self._links
        }
        if self._input is not None:
            feed[self._input.name] = stack([ticket.inputs for ticket in step.tickets])
        return feed

    def compute(self, feed: Arrays, *, whole: bool, halt: Halt | None = None) -> Arrays:
        """The outputs by name, on any thread: the logits, and if `whole` what later members read."""
        names = self._fetched if whole else self._fetched[:1]
        return dict(zip(names, self._session.run(names, feed, _options(halt)), strict=True))

    def room(self, rows: int, *, whole: bool) -> Arrays:
        """Arrays for what `compute` gives, still empty."""
        names = self._fetched if whole else self._fetched[:1]
        return {name: np.empty((rows, *self._outputs[name].shape), self._outputs[name].dtype) for name in names}

    def compute_into(self, outputs: Arrays, feed: Arrays, halt: Halt | None = None) -> None:
        """Fill `outputs`, rows of what `room` made, from the same rows of what the session reads; on any thread."""
        binding = self._session.io_binding()
        for name, values in feed.items():
            binding.bind_cpu_input(name, values)
        for name, values in outputs.items():
            binding.bind_output(name, "cpu", 0, values.dtype, values.shape, values.ctypes.data)
        self._session.run_with_iobinding(binding, _options(halt))

    def hand_out(self, step: Step, outputs: Arrays) -> None:
        """Leave each ticket its rows of what later members read, and take from it what none reads any more."""
        start = 0
        for ticket in step.tickets:
            stop = start + ticket.rows
            for name in self._kept:
                ticket.activations[self._index, name] = HostRows(outputs[name], start, stop)
            for key in self._forgotten:
                del ticket.activations[key]
            start = stop


def _options(halt: Halt | None) -> ort.RunOptions | None:
    """Of one run: onnxruntime looks before each operator whether it is to end, and raises then."""
    if halt is None:
        return None
    options = ort.RunOptions()
    halt.bind(lambda: setattr(options, "terminate", True))
    return options
