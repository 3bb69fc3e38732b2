"""A ladder whose choice is real: six members of about an eighth of the teacher, and the teacher as last stage.

Its time is real: each graph convolves the pixels it is given. Its answers are recorded: the first pixels of a sample
hold the sample's number, and a graph looks up the logits that were drawn for it. So a request costs what an image
costs, on the wire and on the device, and the accuracy of each prefix is a choice of the benchmark: a first member of
about 88.6 %, a teacher of about 95.5 %, members whose errors are partly shared, as those of a trained ensemble are.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper, load_model_from_string, numpy_helper

from benchmarks.chain import CHANNELS, CLASSES, COLOURS, SIDE, member_graph, pixels
from bundle import Bundle, Connection, Evaluation, Manifest, Member, Prefix, Teacher, Tensor, write_bundle
from bundle.store import sha256
from training.calibrate import fit_temperature, outlook

NAME = "recorded"
MEMBERS, MEMBER_BLOCKS, TEACHER_BLOCKS = 6, 4, 34
SHARED, OWN, TEACHER_SHARE, TEACHER_OWN = 0.285, 0.195, 0.9, 0.13
"""Standard deviations of the logits' noise beside a true class at 1: what members share, what each has of its own, the
part of the shared one that the teacher has too, and the teacher's own."""
SCALE = 8.0
"""Of the logits: makes their softmax about calibrated."""

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Recording:
    """Logits drawn for every sample."""

    labels: Array
    """(N,) true classes."""
    logits: Array
    """(stages, N, classes), the teacher's last."""

    def answers(self) -> Array:
        """(stages, N, classes): the running average after each member; after the last stage the teacher's logits."""
        members = self.logits[:-1].cumsum(axis=0) / np.arange(1, len(self.logits))[:, None, None]
        return np.concatenate([members, self.logits[-1:]])

    def accuracy(self) -> Array:
        """(stages,) share of samples that each prefix gets right."""
        shares: Array = (self.answers().argmax(axis=2) == self.labels).mean(axis=1)
        return shares


def record(samples: int, seed: int) -> Recording:
    """Draw labels and logits."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, samples)
    truth = np.eye(CLASSES)[labels]

    def noise() -> Array:
        return random.normal(size=truth.shape)

    shared = SHARED * noise()
    stages = [truth + shared + OWN * noise() for _ in range(MEMBERS)]
    stages.append(truth + TEACHER_SHARE * shared + TEACHER_OWN * noise())
    return Recording(labels, (SCALE * np.stack(stages)).astype(np.float32))


def images(numbers: Array) -> npt.NDArray[np.uint8]:
    """Random pixels (N, 3, 32, 32) that hold the samples' numbers."""
    result = pixels(len(numbers))
    result[:, 0, 0, 0], result[:, 0, 0, 1] = numbers % 256, numbers // 256
    return result


def write_recorded(models: Path, recording: Recording, prefixes: tuple[Prefix, ...] | None = None) -> Bundle:
    """Write the bundle as the next version of `recorded`; without `prefixes` with what the recording itself says."""
    graphs = [_stage(index, recording.logits[index]).SerializeToString() for index in range(MEMBERS + 1)]
    members = tuple(_member(index, graph) for index, graph in enumerate(graphs))
    files = {member.file: graph for member, graph in zip(members, graphs, strict=True)}
    return write_bundle(
        models, files, lambda version: _manifest(NAME, members, recording, prefixes or _prefixes(recording), version)
    )


def write_teacher(models: Path, recording: Recording) -> Bundle:
    """The last stage alone, as the bundle `teacher`."""
    graph = _stage(MEMBERS, recording.logits[-1]).SerializeToString()
    prefix = _prefixes(recording)[-1].model_copy(update={"members": 1, "flops_fraction": 1.0})
    member = _member(MEMBERS, graph).model_copy(update={"index": 0, "combine": "mean"})
    return write_bundle(
        models, {member.file: graph}, lambda version: _manifest("teacher", (member,), recording, (prefix,), version)
    )


def _stage(index: int, table: Array) -> ModelProto:
    """A graph that does the work of `member_graph` and answers from `table`, (N, classes)."""
    last = index == MEMBERS
    model = member_graph(index, TEACHER_BLOCKS if last else MEMBER_BLOCKS, connected=0 < index < MEMBERS)
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["worked" if name == "logits" else name for name in node.output]
    constants = {"table": table, "bytes": np.array([1, 256], np.int64), "nothing": np.array(1e-30, np.float32)}
    for name, value in {**constants, "begin": [0, 0, 0, 0], "end": [2**31, 1, 1, 2], "flat": [-1, 2]}.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    graph.node.extend(
        [
            helper.make_node("Slice", ["x", "begin", "end"], ["corner"]),
            helper.make_node("Cast", ["corner"], ["corner_int"], to=TensorProto.INT64),
            helper.make_node("Reshape", ["corner_int", "flat"], ["digits"]),
            helper.make_node("Mul", ["digits", "bytes"], ["weighted"]),
            helper.make_node("ReduceSum", ["weighted", "last_axis"], ["number"], keepdims=0),
            helper.make_node("Gather", ["table", "number"], ["recorded"]),
            # Not zero times: an optimiser might leave the work out.
            helper.make_node("Mul", ["worked", "nothing"], ["hardly"]),
            helper.make_node("Add", ["recorded", "hardly"], ["logits"]),
        ]
    )
    graph.initializer.append(numpy_helper.from_array(np.array([1]), "last_axis"))
    if last:
        _drop_activation(model)
    return model


def _drop_activation(model: ModelProto) -> None:
    kept = [output for output in model.graph.output if output.name == "logits"]
    del model.graph.output[:]
    model.graph.output.extend(kept)


def _prefixes(recording: Recording) -> tuple[Prefix, ...]:
    answers, costs = recording.answers(), np.cumsum(_costs())
    teacher = answers[-1].argmax(axis=1)
    found = []
    for k, answer in enumerate(answers, start=1):
        shifted = answer - answer.max(axis=1, keepdims=True)
        probabilities = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
        likelihood = probabilities[np.arange(len(answer)), recording.labels]
        right = answer.argmax(axis=1) == recording.labels
        found.append(
            Prefix(
                members=k,
                accuracy=float(right.mean()),
                agreement=float((answer.argmax(axis=1) == teacher).mean()),
                nll=float(-np.log(likelihood).mean()),
                ece=float(abs(probabilities.max(axis=1).mean() - right.mean())),
                flops_fraction=float(costs[k - 1] / _costs()[-1]),
            )
        )
    return tuple(found)


def calibrated(recording: Recording, calibration: Recording) -> tuple[Prefix, ...]:
    """What `recording` says of each prefix, with temperature and outlook fitted on another recording."""
    answers, y = calibration.answers(), calibration.labels
    temperatures = [fit_temperature(answer, y) for answer in answers]
    return tuple(
        prefix.model_copy(
            update={"temperature": temperatures[k], "outlook": outlook(list(answers[k:]), temperatures[k:], y)}
        )
        for k, prefix in enumerate(_prefixes(recording))
    )


def _costs() -> list[float]:
    """FLOPs of each stage."""

    def convolutions(blocks: int) -> float:
        return 2 * 9 * SIDE**2 * CHANNELS * (COLOURS + 2 * blocks * CHANNELS)

    return [convolutions(MEMBER_BLOCKS)] * MEMBERS + [convolutions(TEACHER_BLOCKS)]


def _manifest(
    name: str, members: tuple[Member, ...], recording: Recording, prefixes: tuple[Prefix, ...], version: int
) -> Manifest:
    return Manifest(
        name=name,
        version=version,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        input=Tensor(name="x", dtype="uint8", shape=(COLOURS, SIDE, SIDE)),
        classes=tuple(str(index) for index in range(CLASSES)),
        members=members,
        prefixes=prefixes,
        evaluation=Evaluation(split="recorded", samples=len(recording.labels)),
        teacher=Teacher(name="recorded", accuracy=prefixes[-1].accuracy, flops=_costs()[-1]),
    )


def _member(index: int, graph: bytes) -> Member:
    logits, shape = Tensor(name="logits", dtype="float32", shape=(CLASSES,)), (CHANNELS, SIDE, SIDE)
    activation = Tensor(name="activation", dtype="float32", shape=shape)
    last = index == MEMBERS
    previous = (
        Connection(
            input="previous", from_member=max(0, index - 1), from_output="activation", dtype="float32", shape=shape
        )
        if 0 < index < MEMBERS
        else None
    )
    return Member(
        index=index,
        file=f"member_{index:02d}.onnx",
        sha256=sha256(graph),
        connections=(previous,) if previous else (),
        logits="logits",
        combine="replace" if last else "mean",
        outputs=(logits,) if last else (logits, activation),
        flops=_costs()[index],
        parameters=sum(int(np.prod(weight.dims)) for weight in load_model_from_string(graph).graph.initializer),
    )
