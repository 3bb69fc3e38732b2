"""Tiny ensembles of any wiring: member k reads what each member of `links[k]` has hidden."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from bundle import Bundle, Connection, Manifest, Member, write_bundle
from bundle.store import sha256
from tests.tiny import CLASSES, FEATURES, HIDDEN, tiny_manifest, tiny_member

Links = Sequence[Sequence[int]]


def write_dag(models: Path, links: Links, last: str = "mean") -> Bundle:
    """Write an ensemble as the next version of `tiny`; without any links its members are apart."""
    graphs = [_graph(index, sources) for index, sources in enumerate(links)]
    files = {f"member_{index:02d}.onnx": graph for index, graph in enumerate(graphs)}
    return write_bundle(models, files, lambda version: dag_manifest(links, graphs, version, last))


def dag_manifest(links: Links, graphs: list[bytes], version: int = 1, last: str = "mean") -> Manifest:
    """The manifest of an ensemble so wired."""
    base = tiny_manifest(graphs, version, last=last)
    members = tuple(_member(index, graphs[index], sources, base) for index, sources in enumerate(links))
    return Manifest.model_validate({**base.model_dump(), "members": [member.model_dump() for member in members]})


def _member(index: int, graph: bytes, sources: Sequence[int], base: Manifest) -> Member:
    connections = tuple(
        Connection(input=f"from_{source}", from_member=source, from_output="hidden", dtype="float32", shape=(HIDDEN,))
        for source in sources
    )
    member = tiny_member(index, graph, base.members[index].combine)
    return member.model_copy(update={"connections": connections, "sha256": sha256(graph)})


def _graph(index: int, sources: Sequence[int]) -> bytes:
    random = np.random.default_rng(index)
    weights = {
        "V": random.normal(size=(FEATURES, HIDDEN)).astype(np.float32),
        "W": random.normal(size=(HIDDEN, CLASSES)).astype(np.float32),
    }
    names = [f"from_{source}" for source in sources]
    hidden = [TensorProto.FLOAT, ["batch", HIDDEN]]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "V"], ["projected"]),
            helper.make_node("Sum", ["projected", *names], ["summed"]),
            helper.make_node("Relu", ["summed"], ["hidden"]),
            helper.make_node("MatMul", ["hidden", "W"], ["logits"]),
        ],
        f"member_{index:02d}",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", FEATURES]),
            *(helper.make_tensor_value_info(name, *hidden) for name in names),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES]),
            helper.make_tensor_value_info("hidden", *hidden),
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return model.SerializeToString()
