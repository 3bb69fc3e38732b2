"""Small members in one go: a session of their fused graph on one thread of the CPU.

Beside a member of some 30 microseconds, its step costs several times as much: a call of onnxruntime, a decision,
learning, metrics. Where a request would get the members one right after the other anyway, that is spent once.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np

from bundle import Bundle
from service.engine.fusion import NotFusible, fuse, read_after, read_before, value
from service.engine.host_rows import HostRows, gather, stack
from service.engine.member import Arrays
from service.engine.providers import CPU, first_line, open_session
from service.engine.step import Step
from service.engine.ticket import Logits
from service.engine.wiring import forget_unread


class FusedMembers:
    """One session, and which arrays go in and out of it.

    Raises:
        NotFusible: the members do not go into one graph, or onnxruntime does not open it.
    """

    def __init__(self, bundle: Bundle, members: range) -> None:
        graph = fuse(bundle, members)
        try:
            self._session = open_session(graph.SerializeToString(), CPU)
        except Exception as error:
            # onnxruntime raises bare exceptions of a dozen kinds.
            raise NotFusible(f"onnxruntime does not open their graph: {first_line(error)}") from error
        manifest = bundle.manifest
        self._read, self._kept = read_before(bundle, members), read_after(bundle, members)
        self._logits = [value((index, manifest.members[index].logits)) for index in members]
        self._fetched = list(dict.fromkeys([*self._logits, *map(value, self._kept)]))
        self._forgotten = [
            key for index in members for key in forget_unread(manifest.members, index) if key[0] < members.start
        ]
        tensors = {manifest.input.name: manifest.input}
        for member in manifest.members:
            tensors |= {value((member.index, output.name)): output for output in member.outputs}
        self._shapes = {
            edge.name: (tensors[edge.name].dtype, tensors[edge.name].shape) for edge in self._session.get_inputs()
        }
        self._input = manifest.input.name if manifest.input.name in self._shapes else None

    def run(self, step: Step) -> list[Logits]:
        """The logits of each member; leaves in the tickets what `Executor.run` does after the last of them."""
        outputs: Arrays = dict(zip(self._fetched, self._session.run(self._fetched, self._feed(step)), strict=True))
        start = 0
        for ticket in step.tickets:
            stop = start + ticket.rows
            for key in self._kept:
                ticket.activations[key] = HostRows(outputs[value(key)], start, stop)
            for key in self._forgotten:
                del ticket.activations[key]
            start = stop
        return [outputs[name] for name in self._logits]

    def _feed(self, step: Step) -> Arrays:
        if not step.tickets:
            return {name: np.zeros((step.rows, *shape), dtype) for name, (dtype, shape) in self._shapes.items()}
        feed = {value(key): gather([ticket.activations[key] for ticket in step.tickets]) for key in self._read}
        if self._input is not None:
            feed[self._input] = stack([ticket.inputs for ticket in step.tickets])
        return feed


class CpuFusion:
    """The fused members of all models; see `Fusion`."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[range, FusedMembers]] = {}

    def load(self, model: str, bundle: Bundle, groups: Sequence[range]) -> None:
        """Open a session for each group; see `Fusion.load`."""
        self._groups[model] = {group: FusedMembers(bundle, group) for group in groups}

    def unload(self, model: str) -> None:
        """Free the sessions of a model; see `Together.unload`."""
        self._groups.pop(model, None)

    def run(self, step: Step) -> Generator[Logits]:
        """Run a group; see `Together.run`."""
        yield from self._groups[step.model][step.members].run(step)
