"""A tiny ensemble in ONNX, made without torch: what the tests of `bundle` and `service` run on.

Member k computes `hidden_k = relu(x @ V + previous hidden)` and `logits_k = hidden_k @ W`, with weights from a
seed, so each member needs the activation of the one before it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bundle import Bundle, Connection, Evaluation, Manifest, Member, Prefix, Teacher, Tensor, write_bundle
from bundle.store import sha256

FEATURES, HIDDEN, CLASSES = 4, 5, 3
ONNX_TYPES = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}


def tiny_graph(index: int, dtype: str = "float32", features: int = FEATURES) -> bytes:
    """Member `index` as ONNX; from index 1 on it reads `previous`."""
    random = np.random.default_rng(index)
    weights = {
        "V": random.normal(size=(features, HIDDEN)).astype(np.float32),
        "W": random.normal(size=(HIDDEN, CLASSES)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["x"], ["x_float"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x_float", "V"], ["projected"]),
        helper.make_node("Add", ["projected", "previous"], ["summed"])
        if index
        else helper.make_node("Identity", ["projected"], ["summed"]),
        helper.make_node("Relu", ["summed"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "W"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info("x", ONNX_TYPES[dtype], ["batch", features])]
    if index:
        inputs.append(helper.make_tensor_value_info("previous", TensorProto.FLOAT, ["batch", HIDDEN]))
    graph = helper.make_graph(
        nodes,
        f"member_{index:02d}",
        inputs,
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES]),
            helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["batch", HIDDEN]),
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def tiny_member(index: int, graph: bytes, combine: str = "mean") -> Member:
    """The manifest entry of :func:`tiny_graph`."""
    link = (
        Connection(input="previous", from_member=index - 1, from_output="hidden", dtype="float32", shape=(HIDDEN,))
        if index
        else None
    )
    return Member(
        index=index,
        file=f"member_{index:02d}.onnx",
        sha256=sha256(graph),
        connections=(link,) if link else (),
        logits="logits",
        combine=combine,
        outputs=(
            Tensor(name="logits", dtype="float32", shape=(CLASSES,)),
            Tensor(name="hidden", dtype="float32", shape=(HIDDEN,)),
        ),
        flops=2 * HIDDEN * (FEATURES + CLASSES),
        parameters=HIDDEN * (FEATURES + CLASSES),
    )


def tiny_manifest(
    graphs: list[bytes],
    version: int = 1,
    name: str = "tiny",
    dtype: str = "float32",
    last: str = "mean",
    task: str = "classification",
) -> Manifest:
    """A manifest for `graphs`; accuracy grows by 0.05 a member from 0.7, and so does R²."""
    members = [
        tiny_member(index, graph, last if index == len(graphs) - 1 else "mean") for index, graph in enumerate(graphs)
    ]
    return Manifest(
        name=name,
        version=version,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        input=Tensor(name="x", dtype=dtype, shape=(FEATURES,)),
        classes=("red", "green", "blue"),
        members=tuple(members),
        task=task,
        prefixes=tuple(tiny_prefix(k, task) for k in range(1, len(graphs) + 1)),
        evaluation=Evaluation(split="test", samples=100),
        teacher=Teacher(
            name="oracle",
            **({"accuracy": 0.99} if task == "classification" else {"rmse": 0.1, "r2": 0.99}),
            flops=700.0,
            parameters=350,
        ),
    )


def tiny_prefix(k: int, task: str) -> Prefix:
    """The manifest entry of the first k members."""
    measures = (
        {"accuracy": 0.65 + 0.05 * k, "agreement": 0.7 + 0.05 * k, "nll": 0.5, "ece": 0.1}
        if task == "classification"
        else {"rmse": 1 - 0.1 * k, "r2": 0.65 + 0.05 * k, "teacher_rmse": 0.9 - 0.1 * k}
    )
    return Prefix(members=k, flops_fraction=0.1 * k, **measures)


def write_tiny(
    models: Path,
    members: int = 3,
    name: str = "tiny",
    dtype: str = "float32",
    last: str = "mean",
    task: str = "classification",
) -> Bundle:
    """Write a tiny bundle as the next version of `name`; as a regression it has three outputs."""
    graphs = [tiny_graph(index, dtype) for index in range(members)]
    files = {f"member_{index:02d}.onnx": graph for index, graph in enumerate(graphs)}
    return write_bundle(models, files, lambda version: tiny_manifest(graphs, version, name, dtype, last, task))


def samples(rows: int, seed: int = 0) -> np.ndarray:
    """Inputs for a tiny bundle, (rows, FEATURES) float32."""
    return np.random.default_rng(seed).normal(size=(rows, FEATURES)).astype(np.float32)
