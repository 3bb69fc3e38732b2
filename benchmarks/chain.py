"""A chain of CIFAR-sized members with random weights: for timing, not for accuracy.

Member k convolves raw 3x32x32 pixels, adds the previous member's 32x32x32 activation, and goes on in two
residual blocks; so each member needs the one before it, as in a bundle with residual connections.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper, numpy_helper

from bundle import Bundle, Connection, Evaluation, Manifest, Member, Prefix, Teacher, Tensor, write_bundle
from bundle.store import sha256

SIDE, COLOURS, CHANNELS, CLASSES, BLOCKS = 32, 3, 32, 10, 2
NAME = "chain"


def write_chain(models: Path, members: int = 6, *, connected: bool = True) -> Bundle:
    """Write the chain as the next version of `chain`; not connected, its members read the pixels alone."""
    graphs = [member_graph(index, connected=connected and index > 0).SerializeToString() for index in range(members)]
    files = {f"member_{index:02d}.onnx": graph for index, graph in enumerate(graphs)}
    return write_bundle(models, files, lambda version: _manifest(graphs, version, connected))


def pixels(rows: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Random images, (rows, 3, 32, 32)."""
    return np.random.default_rng(seed).integers(0, 256, (rows, COLOURS, SIDE, SIDE), dtype=np.uint8)


def member_graph(index: int, blocks: int = BLOCKS, *, connected: bool | None = None) -> ModelProto:
    """Member `index`, of `blocks` residual blocks; every member but the first reads the one before, unless told."""
    random = np.random.default_rng(index)
    connected = index > 0 if connected is None else connected
    weights: dict[str, npt.NDArray[np.float32]] = {"scale": np.array(1 / 255, np.float32)}

    def convolution(source: str, target: str, inputs: int) -> list[Any]:
        shape = (CHANNELS, inputs, 3, 3)
        weights[f"{target}_w"] = (random.normal(size=shape) * np.sqrt(2 / (9 * inputs))).astype(np.float32)
        return [helper.make_node("Conv", [source, f"{target}_w"], [target], pads=[1, 1, 1, 1])]

    nodes = [
        helper.make_node("Cast", ["x"], ["x_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x_float", "scale"], ["scaled"]),
        *convolution("scaled", "stem", COLOURS),
        helper.make_node("Add", ["stem", "previous"], ["stage0"]) if connected else _same("stem", "stage0"),
    ]
    for block in range(blocks):
        nodes += [
            *convolution(f"stage{block}", f"inner{block}", CHANNELS),
            helper.make_node("Relu", [f"inner{block}"], [f"active{block}"]),
            *convolution(f"active{block}", f"outer{block}", CHANNELS),
            helper.make_node("Add", [f"outer{block}", f"stage{block}"], [f"stage{block + 1}"]),
        ]
    weights["head"] = random.normal(size=(CHANNELS, CLASSES)).astype(np.float32)
    nodes += [
        _same(f"stage{blocks}", "activation"),
        helper.make_node("ReduceMean", ["activation", "axes"], ["pooled"], keepdims=0),
        helper.make_node("MatMul", ["pooled", "head"], ["logits"]),
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    constants.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
    inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, ["batch", COLOURS, SIDE, SIDE])]
    activation: tuple[str | int, ...] = ("batch", CHANNELS, SIDE, SIDE)
    if connected:
        inputs.append(helper.make_tensor_value_info("previous", TensorProto.FLOAT, activation))
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES]),
        helper.make_tensor_value_info("activation", TensorProto.FLOAT, activation),
    ]
    graph = helper.make_graph(nodes, f"member_{index:02d}", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _same(source: str, target: str) -> Any:  # noqa: ANN401  (onnx has no types)
    return helper.make_node("Identity", [source], [target])


def _manifest(graphs: list[bytes], version: int, connected: bool) -> Manifest:
    shape = (CHANNELS, SIDE, SIDE)
    convolutions = 9 * SIDE**2 * CHANNELS * (COLOURS + 2 * BLOCKS * CHANNELS)
    members = [
        Member(
            index=index,
            file=f"member_{index:02d}.onnx",
            sha256=sha256(graph),
            connections=(
                Connection(
                    input="previous", from_member=index - 1, from_output="activation", dtype="float32", shape=shape
                ),
            )
            if connected and index
            else (),
            logits="logits",
            outputs=(
                Tensor(name="logits", dtype="float32", shape=(CLASSES,)),
                Tensor(name="activation", dtype="float32", shape=shape),
            ),
            flops=2 * convolutions,
            parameters=9 * CHANNELS * (COLOURS + 2 * BLOCKS * CHANNELS) + CHANNELS * CLASSES,
        )
        for index, graph in enumerate(graphs)
    ]
    # Random weights predict nothing: chance level throughout.
    chance = 1 / CLASSES
    return Manifest(
        name=NAME,
        version=version,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        input=Tensor(name="x", dtype="uint8", shape=(COLOURS, SIDE, SIDE)),
        classes=tuple(str(index) for index in range(CLASSES)),
        members=tuple(members),
        prefixes=tuple(
            Prefix(
                members=k,
                accuracy=chance,
                agreement=chance,
                nll=np.log(CLASSES),
                ece=0.0,
                flops_fraction=k / len(graphs),
            )
            for k in range(1, len(graphs) + 1)
        ),
        evaluation=Evaluation(split="random", samples=1),
        teacher=Teacher(name="none", accuracy=chance),
    )
