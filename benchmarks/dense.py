"""The lightest bundle there is: one member, one hidden layer, random weights. For timing what is around it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from bundle import Bundle, Evaluation, Manifest, Member, Prefix, Teacher, Tensor, write_bundle
from bundle.store import sha256

HIDDEN, CLASSES = 16, 10


def write_dense(models: Path, features: int) -> Bundle:
    """Write `dense-<features>`, over so many float32 values a sample."""
    graph = _graph(features)
    return write_bundle(models, {"member_00.onnx": graph}, lambda version: _manifest(graph, features, version))


def _graph(features: int) -> bytes:
    random = np.random.default_rng(0)
    shapes = {"V": (features, HIDDEN), "W": (HIDDEN, CLASSES)}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "V"], ["projected"]),
            helper.make_node("Relu", ["projected"], ["hidden"]),
            helper.make_node("MatMul", ["hidden", "W"], ["logits"]),
        ],
        "member_00",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", features])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [
            numpy_helper.from_array((random.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32), name)
            for name, shape in shapes.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content


def _manifest(graph: bytes, features: int, version: int) -> Manifest:
    parameters = HIDDEN * (features + CLASSES)
    # Random weights predict nothing: chance level.
    chance = 1 / CLASSES
    return Manifest(
        name=f"dense-{features}",
        version=version,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        input=Tensor(name="x", dtype="float32", shape=(features,)),
        classes=tuple(str(index) for index in range(CLASSES)),
        members=(
            Member(
                index=0,
                file="member_00.onnx",
                sha256=sha256(graph),
                connections=(),
                logits="logits",
                outputs=(Tensor(name="logits", dtype="float32", shape=(CLASSES,)),),
                flops=2 * parameters,
                parameters=parameters,
            ),
        ),
        prefixes=(
            Prefix(members=1, accuracy=chance, agreement=chance, nll=np.log(CLASSES), ece=0.0, flops_fraction=1),
        ),
        evaluation=Evaluation(split="random", samples=1),
        teacher=Teacher(name="none", accuracy=chance),
    )
