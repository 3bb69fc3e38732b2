"""Recurrent members as graphs for a stream: the raw steps of one chunk, taps and states in; logits, taps, states out.

A chunk graph is a second form of a member, with the same weights. Only its batch is dynamic. Before it is accepted it
is run through onnxruntime chunk after chunk, and after each must say what torch says of the whole sequence there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnxruntime as ort
import torch
from torch import Tensor, nn

from bundle import Connection, State
from bundle import Tensor as Edge
from training.config import Config
from training.ensemble import Ensemble, TrainedMember
from training.errors import BadConfig
from training.export import (
    EXAMPLE_BATCH,
    LOGITS,
    PARITY_BATCHES,
    compare,
    example,
    set_steps,
    strip,
    to_onnx,
)
from training.networks import ModelClass, Recurrent, RecurrentNetwork

STATE_NAMES = ("hidden", "cell")
"""What a layer's state consists of; a GRU has only the first."""


@dataclass(frozen=True, slots=True)
class ChunkGraph:
    """One exported chunk graph: its file's content and its edges as the manifest names them."""

    content: bytes
    connections: tuple[Connection, ...]
    states: tuple[State, ...]
    outputs: tuple[Edge, ...]


def check_chunks(config: Config, classes: Sequence[ModelClass], shape: tuple[int, ...]) -> None:
    """Whether what `chunk_steps` asks for can be had.

    Raises:
        BadConfig: members that are not recurrent, or chunks that do not fill the sequence or are no whole frames.
    """
    if not config.chunk_steps:
        return
    for model_class in classes:
        if not isinstance(model_class, Recurrent):
            name = model_class.name
            raise BadConfig(f"chunk_steps={config.chunk_steps} is for recurrent members only, and {name} is none.")
        if config.chunk_steps % model_class.frame:
            raise BadConfig(
                f"chunk_steps={config.chunk_steps} must be a multiple of the {model_class.frame} steps that "
                f"{model_class.name} reads at once."
            )
    if shape[0] % config.chunk_steps:
        raise BadConfig(f"chunk_steps={config.chunk_steps} must divide the {shape[0]} steps of a sequence.")


class _FlatChunk(nn.Module):
    """A member's chunk with taps and states as plain arguments and results."""

    def __init__(self, network: RecurrentNetwork, sources: int, *, taps: bool) -> None:
        super().__init__()
        self.network, self._sources, self._taps = network, sources, taps

    def forward(self, x: Tensor, *links: Tensor) -> tuple[Tensor, ...]:
        """`links`: taps stage by stage, in each stage source by source; then the states layer by layer."""
        count = self._sources * len(self.network.stages)
        earlier = [links[at : at + self._sources] for at in range(0, count, self._sources or 1)]
        waiting = iter(links[count:])
        states = [tuple(next(waiting) for _ in range(layer.states)) for layer in self.network.layers()]
        logits, taps, after = self.network.go_on(x, earlier, states)
        return (logits, *(taps if self._taps else ()), *(value for state in after for value in state))


def export_chunks(ensemble: Ensemble, steps: int) -> list[ChunkGraph]:
    """Export a graph of `steps` steps for every member, and check each against torch on the validation samples.

    Raises:
        ExportError: a graph is not valid, has a fixed batch axis, or does not compute what torch does.
    """
    read = {source for member in ensemble.members for source in member.sources}
    return [
        _export(ensemble, index, member, steps, taps=index in read) for index, member in enumerate(ensemble.members)
    ]


def _export(ensemble: Ensemble, index: int, member: TrainedMember, steps: int, *, taps: bool) -> ChunkGraph:
    network = member.network.cpu()
    if not isinstance(network, RecurrentNetwork):
        raise TypeError("only recurrent members have chunk graphs")
    x = ensemble.validation.x[: max(PARITY_BATCHES)].cpu()
    links = [tap.cpu() for stage in ensemble.validation.read(member.sources, slice(0, len(x))) for tap in stage]
    connections = _connections(network, member.sources, links, steps // network.frame)
    states = _states(network)
    outputs = [LOGITS, *(f"stage_{stage}" for stage in range(len(network.stages) if taps else 0))]
    few, few_links = example(network, x, links)
    model = to_onnx(
        _FlatChunk(network, len(member.sources), taps=taps).eval(),
        few,
        [*few_links, *(torch.zeros(EXAMPLE_BATCH, *state.shape) for state in states)],
        [*(link.input for link in connections), *(state.input for state in states)],
        [*outputs, *(state.output for state in states)],
    )
    set_steps(model, steps, network.frame)
    graph = ChunkGraph(strip(model), connections, states, tuple(_edge(network, name, steps) for name in outputs))
    _check_parity(f"chunk of member {index}", graph, network, x, links)
    return graph


def _connections(
    network: RecurrentNetwork, sources: Sequence[int], links: Sequence[Tensor], frames: int
) -> tuple[Connection, ...]:
    read = [(source, f"stage_{stage}") for stage in range(len(network.stages)) for source in sources]
    return tuple(
        Connection(
            input=f"member_{source:02d}_{tap}",
            from_member=source,
            from_output=tap,
            dtype="float32",
            shape=(frames, link.shape[-1]),
        )
        for (source, tap), link in zip(read, links, strict=True)
    )


def _states(network: RecurrentNetwork) -> tuple[State, ...]:
    return tuple(
        State(
            input=f"{name}_{number}", output=f"{name}_{number}_next", dtype="float32", shape=(layer.cell.hidden_size,)
        )
        for number, layer in enumerate(network.layers())
        for name in STATE_NAMES[: layer.states]
    )


def _edge(network: RecurrentNetwork, name: str, steps: int) -> Edge:
    if name == LOGITS:
        return Edge(name=name, dtype="float32", shape=(network.labels,))
    stage = int(name.removeprefix("stage_"))
    return Edge(name=name, dtype="float32", shape=(steps // network.frame, network.widths[stage]))


def _check_parity(
    who: str, graph: ChunkGraph, network: RecurrentNetwork, samples: Tensor, links: Sequence[Tensor]
) -> None:
    session = ort.InferenceSession(graph.content, providers=["CPUExecutionProvider"])
    names = [edge.name for edge in session.get_outputs()]
    per_stage = len(links) // len(network.stages)
    steps = session.get_inputs()[0].shape[1]
    for size in PARITY_BATCHES:
        x, taken = samples[:size], [link[:size] for link in links]
        earlier = [taken[at : at + per_stage] for at in range(0, len(taken), per_stage or 1)]
        with torch.no_grad():
            _, taps = network(x, earlier)
            logits_NTL = network.logits_of_steps(taps)
        states = {state.input: torch.zeros(len(x), *state.shape).numpy() for state in graph.states}
        for end in range(steps, samples.shape[1] + 1, steps):
            now = slice(end - steps, end)
            frames = slice(now.start // network.frame, now.stop // network.frame)
            fed = {link.input: value[:, frames].numpy() for link, value in zip(graph.connections, taken, strict=True)}
            found = dict(zip(names, session.run(names, {"x": x[:, now].numpy(), **fed, **states}), strict=True))
            states = {state.input: found[state.output] for state in graph.states}
            where = f"{who} at batch size {size} after {end} steps"
            compare(where, logits_NTL[:, frames.stop - 1].numpy(), found[LOGITS])
            for tap, edge in zip(taps, graph.outputs[1:], strict=False):
                compare(where, tap[:, frames].numpy(), found[edge.name])
