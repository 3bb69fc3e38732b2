"""Members as ONNX: what torch computes, for any batch, with nothing of this machine in the file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tests.training.toy import CONFIG
from training import Convolutional, Data, DenseNet, FullyConnected, Logits, Recurrent, ResNet, Split
from training.bdistil import Outcome, run_rounds
from training.checkpoint import Checkpoint
from training.errors import ExportError
from training.export import Graph, compare, export_members, export_teacher, strip
from training.game import Game
from training.pipeline import game_of
from training.progress import Quiet

SETTINGS = {"threads": 1, "epochs": 1, "max_search": 1, "on_failure": "best", "gamma": 1e6}


def images(dtype: str, shape: tuple[int, ...]) -> tuple[Data, Logits]:
    """Random images with random teacher logits: nothing to learn, but something to export."""
    random = np.random.default_rng(0)
    parts, logits = {}, {}
    for name, size in {"train": 40, "validation": 70, "test": 20}.items():
        x = random.integers(0, 200, size=(size, *shape)).astype(dtype)
        parts[name] = Split(x, np.arange(size) % 3)
        logits[name] = x.reshape(size, -1)[:, :3] / 50 - 2.0
    sequences = dtype == "float32" and len(shape) == 2
    data = Data(
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        classes=("a", "b", "c"),
        sequences=sequences,
    )
    return data, Logits(**logits)


def run(folder: Path, model_class, dtype: str, shape: tuple[int, ...], kind: str, rounds: int) -> tuple[Game, Outcome]:
    data, logits = images(dtype, shape)
    config = dataclasses.replace(CONFIG, **SETTINGS, connection=kind, rounds=rounds)
    game = game_of(logits, data, [model_class], config, Checkpoint(folder / "c", "x"), Quiet())
    return game, run_rounds(game)


@pytest.fixture(
    scope="module",
    params=[
        (Convolutional(widths=(2, 3)), "uint8", (8, 6), "dense", 3),
        (Convolutional(widths=(2, 3)), "float32", (3, 6, 6), "residual", 2),
        (FullyConnected(widths=(4, 3)), "float32", (5,), "dense", 2),
        (FullyConnected(widths=(4, 3)), "uint8", (5,), "residual", 2),
        (ResNet(widths=(2, 3, 4)), "uint8", (3, 8, 8), "dense", 2),
        (ResNet(widths=(2, 3), blocks=2, downsample="block"), "uint8", (3, 9, 7), "residual", 2),
        (DenseNet(widths=(3, 4), growth=2), "uint8", (3, 9, 7), "dense", 2),
        (Convolutional(widths=(2,)), "uint8", (8, 6), "lstm", 2),
        (Recurrent(cell="lstm", widths=(4,)), "float32", (7, 5), "dense", 3),
        (Recurrent(cell="gru", widths=(4,)), "float32", (7, 5), "gru", 2),
        (Recurrent(cell="gru", widths=(4, 3), frame=5), "float32", (20, 3), "dense", 3),
        (Recurrent(cell="gru", widths=(4, 3)), "float32", (7, 5), "residual", 2),
    ],
    ids=lambda case: f"{case[0].name}-{case[1]}-{case[3]}",
)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    game, outcome = run(tmp_path_factory.mktemp("export"), *request.param)
    assert len(outcome.ensemble) == request.param[-1]
    return game, outcome, export_members(outcome.ensemble)  # checks parity at three batch sizes


def test_every_axis_that_should_be_dynamic_is(exported: tuple[Game, Outcome, list[Graph]]):
    _, outcome, graphs = exported
    for graph, member in zip(graphs, outcome.ensemble.members, strict=True):
        model = onnx.load_from_string(graph.content)
        batch = {edge.type.tensor_type.shape.dim[0].dim_param for edge in (*model.graph.input, *model.graph.output)}
        assert batch == {"batch"}
        assert max(entry.version for entry in model.opset_import) >= 18
        assert len(model.graph.input) == 1 + len(member.sources) * len(member.network.stages)
        assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_no_trace_of_this_machine(exported: tuple[Game, Outcome, list[Graph]]):
    for graph in exported[2]:
        for trace in (b".py", b"/tmp", b"/home", b"/usr", b"training/", b"training.", b"stack_trace"):
            assert trace not in graph.content


def test_the_same_member_gives_the_same_bytes(tmp_path: Path):
    _, outcome = run(tmp_path, FullyConnected(widths=(3,)), "float32", (4,), "residual", 2)
    one, two = (export_members(outcome.ensemble) for _ in range(2))
    assert [graph.content for graph in one] == [graph.content for graph in two]


def test_only_taps_that_are_read_are_outputs(exported: tuple[Game, Outcome, list[Graph]]):
    _, outcome, graphs = exported
    read = {source for member in outcome.ensemble.members for source in member.sources}
    for index, graph in enumerate(graphs):
        names = [output.name for output in graph.outputs]
        assert names[0] == "logits"
        assert (len(names) > 1) == (index in read)
    assert len(graphs[-1].outputs) == 1


def test_a_difference_to_torch_is_an_error():
    torch_says = np.array([[1.0, 2.0]], np.float32)
    compare("member 0", torch_says, torch_says + 1e-5)
    with pytest.raises(ExportError, match=r"member 0: onnxruntime differs from torch by 0\.001"):
        compare("member 0", torch_says, torch_says + 1e-3)
    with pytest.raises(ExportError):
        compare("member 0", torch_says, np.full_like(torch_says, np.nan))


def model(batch: int | str, opset: int) -> onnx.ModelProto:
    edges = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [batch, 2]) for name in ("x", "logits")]
    node = onnx.helper.make_node("Relu", ["x"], ["logits"], doc_string="/home/somebody/secret.py")
    graph = onnx.helper.make_graph([node], "g", edges[:1], edges[1:])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)


def test_a_frozen_batch_axis_or_an_old_opset_is_an_error():
    assert b"secret" not in strip(model("batch", 18))
    with pytest.raises(ExportError, match="batch axis of x was exported as a constant"):
        strip(model(2, 18))
    with pytest.raises(ExportError, match="opset 13, but 18"):
        strip(model("batch", 13))


def test_a_gru_that_is_not_torchs_is_an_error():
    def gru(**attributes: int) -> onnx.ModelProto:
        changed = model("batch", 18)
        changed.graph.node.append(onnx.helper.make_node("GRU", ["x", "w", "r"], ["h"], hidden_size=2, **attributes))
        return changed

    for wrong in ({}, {"linear_before_reset": 0}):
        with pytest.raises(ExportError, match="reset gate before the product"):
            strip(gru(**wrong))


def test_recurrent_layers_are_operators(exported: tuple[Game, Outcome, list[Graph]]):
    _, outcome, graphs = exported
    recurrent = {"GRU", "LSTM"}
    for graph, member in zip(graphs, outcome.ensemble.members, strict=True):
        found = [node.op_type for node in onnx.load_from_string(graph.content).graph.node]
        layers = [type(module).__name__ for module in member.network.modules()]
        assert [name for name in found if name in recurrent] == [name for name in layers if name in recurrent]
        assert not {"Loop", "Scan", "If"} & set(found), "a layer is one operator, not a loop over its steps"


class FixedLength(nn.Module):
    """Sequences of eight steps, each with weights of its own before the classes or before the recurrence."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(32 if place == "after" else 4, 2)
        self.before = nn.Parameter(torch.ones(8, 3)) if place == "before" else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.gru(x if self.before is None else x + self.before)[0]
        return self.head(hidden[:, -1] if self.head.in_features == 4 else hidden.flatten(1))


@pytest.mark.parametrize("place", ["after", "before", "nowhere"])
def test_a_recurrent_teacher_may_know_how_long_its_sequences_are(place: str):
    """Its parity with torch is checked by the export."""
    torch.manual_seed(0)
    graph = onnx.load_from_string(export_teacher(FixedLength(place), torch.randn(70, 8, 3)).content).graph
    assert [size.dim_value for size in graph.input[0].type.tensor_type.shape.dim[1:]] == [8, 3]
    assert "GRU" in {node.op_type for node in graph.node}


def test_export_leaves_the_members_as_they_were(exported: tuple[Game, Outcome, list[Graph]]):
    for member in exported[1].ensemble.members:
        assert not member.network.training
        assert all(torch.isfinite(value).all() for value in member.network.state_dict().values())
