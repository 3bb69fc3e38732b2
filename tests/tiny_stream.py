"""A tiny ensemble for sequences in ONNX, made without torch, with a graph for the whole and one for a chunk.

Member k computes ``hidden_t = hidden_(t-1) + tanh(x_t @ V + previous_t)`` and ``logits = hidden_last @ W``, with
weights from a seed; `previous` is the hidden sequence of the member before it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bundle import Bundle, Chunk, Connection, Manifest, State, Tensor, write_bundle
from bundle.store import sha256
from tests.tiny import tiny_manifest

STEPS, CHUNK_STEPS, FEATURES, HIDDEN, CLASSES = 6, 2, 4, 5, 3


@dataclasses.dataclass(frozen=True)
class StreamGraphs:
    """Both graphs of one member."""

    whole: bytes
    chunk: bytes


def stream_graph(index: int, steps: int, *, state: bool) -> bytes:
    """Member `index` over `steps` steps; from index 1 on it reads `previous`."""
    random = np.random.default_rng(100 + index)
    weights = {
        "V": random.normal(size=(FEATURES, HIDDEN)).astype(np.float32),
        "W": random.normal(size=(HIDDEN, CLASSES)).astype(np.float32),
        "axis": np.array(1, np.int64),
        "one": np.array([1], np.int64),
        "last": np.array(-1, np.int64),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "V"], ["projected"]),
        helper.make_node("Add", ["projected", "previous"], ["summed"])
        if index
        else helper.make_node("Identity", ["projected"], ["summed"]),
        helper.make_node("Tanh", ["summed"], ["squashed"]),
        helper.make_node("CumSum", ["squashed", "axis"], ["run"]),
        *(
            [
                helper.make_node("Unsqueeze", ["state_in", "one"], ["before"]),
                helper.make_node("Add", ["run", "before"], ["hidden"]),
            ]
            if state
            else [helper.make_node("Identity", ["run"], ["hidden"])]
        ),
        helper.make_node("Gather", ["hidden", "last"], ["end"], axis=1),
        helper.make_node("MatMul", ["end", "W"], ["logits"]),
    ]
    inputs, outputs = [_edge("x", steps, FEATURES)], [_edge("logits", CLASSES), _edge("hidden", steps, HIDDEN)]
    if index:
        inputs.append(_edge("previous", steps, HIDDEN))
    if state:
        nodes.append(helper.make_node("Identity", ["end"], ["state_out"]))
        inputs.append(_edge("state_in", HIDDEN))
        outputs.append(_edge("state_out", HIDDEN))
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, f"member_{index:02d}", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def stream_graphs(members: int) -> list[StreamGraphs]:
    """Both graphs of the first `members` members."""
    return [
        StreamGraphs(stream_graph(index, STEPS, state=False), stream_graph(index, CHUNK_STEPS, state=True))
        for index in range(members)
    ]


def stream_chunk(index: int, graph: bytes) -> Chunk:
    """The manifest entry of a chunk graph."""
    return Chunk(
        file=f"member_{index:02d}_chunk.onnx",
        sha256=sha256(graph),
        connections=_links(index, CHUNK_STEPS),
        states=(State(input="state_in", output="state_out", dtype="float32", shape=(HIDDEN,)),),
        logits="logits",
        outputs=_outputs(CHUNK_STEPS),
    )


def stream_manifest(graphs: list[StreamGraphs], version: int = 1) -> Manifest:
    """A manifest for `graphs`."""
    plain = tiny_manifest([graph.whole for graph in graphs], version, name="stream")
    members = tuple(
        member.model_copy(
            update={
                "connections": _links(member.index, STEPS),
                "outputs": _outputs(STEPS),
                "chunk": stream_chunk(member.index, graph.chunk),
            }
        )
        for member, graph in zip(plain.members, graphs, strict=True)
    )
    changes = {
        "input": Tensor(name="x", dtype="float32", shape=(STEPS, FEATURES)),
        "chunk_steps": CHUNK_STEPS,
        "members": members,
    }
    return Manifest.model_validate(plain.model_copy(update=changes).model_dump())


def write_stream(models: Path, members: int = 3) -> Bundle:
    """Write a tiny bundle with chunk graphs as the next version of ``stream``."""
    graphs = stream_graphs(members)
    files = {f"member_{index:02d}.onnx": graph.whole for index, graph in enumerate(graphs)}
    files |= {f"member_{index:02d}_chunk.onnx": graph.chunk for index, graph in enumerate(graphs)}
    return write_bundle(models, files, lambda version: stream_manifest(graphs, version))


def sequences(rows: int, steps: int = STEPS) -> np.ndarray:
    """Inputs for a tiny stream bundle, (rows, steps, FEATURES) float32."""
    return np.random.default_rng(0).normal(size=(rows, steps, FEATURES)).astype(np.float32)


def _edge(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])


def _links(index: int, steps: int) -> tuple[Connection, ...]:
    if not index:
        return ()
    shape = (steps, HIDDEN)
    return (Connection(input="previous", from_member=index - 1, from_output="hidden", dtype="float32", shape=shape),)


def _outputs(steps: int) -> tuple[Tensor, ...]:
    return (
        Tensor(name="logits", dtype="float32", shape=(CLASSES,)),
        Tensor(name="hidden", dtype="float32", shape=(steps, HIDDEN)),
    )
