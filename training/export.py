"""A member as ONNX: raw input and earlier members' taps in, logits and its own taps out.

The same member gives the same bytes: the exporter's notes (stack traces with paths of the machine) are removed.
Every graph is run through onnxruntime on real validation samples before it is accepted.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.export import Dim

from bundle import Connection
from bundle import Tensor as Edge
from training.ensemble import Ensemble, Features, TrainedMember
from training.errors import BadTeacher, ExportError
from training.networks import Frames, StagedNetwork

INPUT = "x"
"""Name of the raw input in every graph."""
LOGITS = "logits"
MINIMUM_OPSET = 18
EXAMPLE_BATCH = 2
"""Samples to export with: a batch of 1 was taken for a constant by some releases of torch."""
EXAMPLE_FRAMES = 3
"""Frames to export a recurrent member with: tracing unrolls each, only to end in one operator for all."""
PARITY_BATCHES = (1, 2, 64)
TOLERANCE = 1e-4
"""Largest difference to torch, as a share of the largest absolute value (at least 1)."""


@dataclass(frozen=True, slots=True)
class Graph:
    """One exported member: its file's content and its edges as the manifest names them."""

    content: bytes
    connections: tuple[Connection, ...]
    outputs: tuple[Edge, ...]


class _Flat(nn.Module):
    """A member with its taps as plain arguments and results, which is what a graph has."""

    def __init__(self, network: StagedNetwork, stages: int, *, taps: bool) -> None:
        super().__init__()
        self.network, self._stages, self._taps = network, stages, taps

    def forward(self, x: Tensor, *links: Tensor) -> tuple[Tensor, ...]:
        """`links` go stage by stage, in each stage source by source."""
        per_stage = len(links) // self._stages
        earlier = [links[stage * per_stage : (stage + 1) * per_stage] for stage in range(self._stages)]
        logits, taps = self.network(x, earlier)
        return (logits, *taps) if self._taps else (logits,)


def export_members(ensemble: Ensemble) -> list[Graph]:
    """Export every member and check it against torch on the validation samples.

    A member's taps are outputs only if a later member reads them.

    Raises:
        ExportError: a graph is not valid, has a fixed batch axis, or does not compute what torch does.
    """
    read = {source for member in ensemble.members for source in member.sources}
    return [export_member(ensemble.validation, k, member, taps=k in read) for k, member in enumerate(ensemble.members)]


def export_member(features: Features, index: int, member: TrainedMember, *, taps: bool) -> Graph:
    """One member; `features` hold the samples and what it reads of others, `taps` says whether its own are outputs."""
    samples = features.x[: max(PARITY_BATCHES)].cpu()
    links = [tap.cpu() for stage in features.read(member.sources, slice(0, max(PARITY_BATCHES))) for tap in stage]
    stages = len(member.network.stages)
    flat = _Flat(member.network.cpu(), stages, taps=taps).eval()
    read = [(source, f"stage_{stage}") for stage in range(stages) for source in member.sources]
    names = [f"member_{source:02d}_{tap}" for source, tap in read]
    outputs = [LOGITS, *(f"stage_{stage}" for stage in range(stages if taps else 0))]
    model = to_onnx(flat, *example(flat, samples, links), names, outputs)
    set_steps(model, samples.shape[1], frame_of(flat))
    content = strip(model)
    _check_parity(f"member {index}", content, flat, samples, links)
    with torch.no_grad():
        results = flat(samples[:1], *(link[:1] for link in links))
    return Graph(
        content,
        tuple(
            Connection(
                input=name,
                from_member=source,
                from_output=tap,
                dtype="float32",
                shape=tuple(link.shape[1:]),
            )
            for name, (source, tap), link in zip(names, read, links, strict=True)
        ),
        tuple(
            Edge(name=name, dtype="float32", shape=tuple(result.shape[1:]))
            for name, result in zip(outputs, results, strict=True)
        ),
    )


def export_plain(network: nn.Module, samples: Tensor, *, whole: bool = False) -> bytes:
    """A network that reads nobody, from raw samples to logits, as ONNX.

    Args:
        network: takes one tensor called `x`.
        samples: at least two raw samples.
        whole: trace a recurrent network on all steps of its sequences, however long that takes, not on a few.

    Raises:
        ExportError: the graph is not valid or has a fixed batch axis.
    """
    network = network.cpu().eval()
    if whole:
        return strip(to_onnx(network, samples[:EXAMPLE_BATCH], [], [], [LOGITS]))
    model = to_onnx(network, *example(network, samples, []), [], [LOGITS])
    set_steps(model, samples.shape[1], frame_of(network))
    return strip(model)


class _Plain(nn.Module):
    """Somebody's network, its input called `x`, its logits in float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """The logits alone, as a member's graph would give them."""
        logits_NL: Tensor = self.network(x)
        return (logits_NL.float(),)


def export_teacher(network: nn.Module, samples: Tensor) -> Graph:
    """A whole teacher as a graph that reads nobody, checked against torch as every member is.

    Args:
        network: from raw samples to logits; left as it is, the graph is made from a copy.
        samples: raw validation samples.

    Raises:
        BadTeacher: it cannot be exported.
        ExportError: the graph does not compute what torch does.
    """
    plain = _Plain(copy.deepcopy(network)).cpu().eval()
    taken = samples[: max(PARITY_BATCHES)].cpu()
    content = _from_few_steps(plain, taken) if frame_of(plain) else None
    try:
        content = content or export_plain(plain, taken, whole=True)
    except Exception as error:
        raise BadTeacher(
            f"The teacher cannot be a stage of the bundle, because its export to ONNX failed ({type(error).__name__}): "
            "give a network that torch.onnx can trace, or leave with_teacher out."
        ) from error
    _check_parity("the teacher", content, plain, taken, [])
    with torch.no_grad():
        (logits_NL,) = plain(taken[:1])
    return Graph(content, (), (Edge(name=LOGITS, dtype="float32", shape=tuple(logits_NL.shape[1:])),))


def _from_few_steps(plain: _Plain, samples: Tensor) -> bytes | None:
    """A recurrent teacher, exported as fast as a member; None where it knows how long its sequences are."""
    try:
        content = export_plain(plain, samples)
        _check_parity("the teacher", content, plain, samples, [])
    except Exception:  # what it means, the export on all steps says
        return None
    return content


def frame_of(network: nn.Module) -> int:
    """Steps that a recurrent network reads at once; 0 of one that is not recurrent."""
    modules = list(network.modules())
    recurrent = any(isinstance(module, nn.RNNBase) for module in modules)
    return next((module.kernel_size[0] for module in modules if isinstance(module, Frames)), int(recurrent))


def example(network: nn.Module, x: Tensor, links: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """A few samples, and of sequences the first frames, with the taps (N, frames, C) that belong to them."""
    frame = frame_of(network)
    if not frame:
        return x[:EXAMPLE_BATCH], [link[:EXAMPLE_BATCH] for link in links]
    return x[:EXAMPLE_BATCH, : frame * EXAMPLE_FRAMES], [link[:EXAMPLE_BATCH, :EXAMPLE_FRAMES] for link in links]


def set_steps(model: onnx.ModelProto, steps: int, frame: int) -> None:
    """Give the edges (N, T, C) of a recurrent network the number of steps that the data has, or of whole frames.

    No operator inside depends on it; if one did, the check of parity, which is done at this number, would fail.
    """
    for edge in (*model.graph.input, *model.graph.output) if frame else ():
        dimensions = edge.type.tensor_type.shape.dim
        if len(dimensions) == 3:
            dimensions[1].dim_value = steps if edge.name == INPUT else steps // frame


def to_onnx(
    flat: nn.Module, x: Tensor, links: Sequence[Tensor], link_names: Sequence[str], outputs: Sequence[str]
) -> onnx.ModelProto:
    """Trace `flat` at the example `x` and `links`, with a dynamic batch axis first in every edge."""
    batch = {0: Dim("batch")}
    shapes = {"x": batch} | ({"links": tuple(batch for _ in links)} if links else {})
    with warnings.catch_warnings(), _quiet_exporter():
        warnings.simplefilter("ignore")  # deprecations inside the exporter, which nobody here can act on
        program = torch.onnx.export(
            flat,
            (x, *links),
            dynamo=True,
            external_data=False,
            input_names=[INPUT, *link_names],
            output_names=list(outputs),
            dynamic_shapes=shapes,
        )
    if program is None:
        raise ExportError("torch.onnx.export gave no program.")
    return program.model_proto


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter prints its progress; the run has its own."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def strip(model: onnx.ModelProto) -> bytes:
    """The model's bytes without documentation and metadata, which hold paths and differ between machines.

    Raises:
        ExportError: the model is not valid ONNX, is too old an opset, has a fixed batch axis, or another GRU.
    """
    _strip_fields(model)
    for edge in (*model.graph.input, *model.graph.output):
        if not edge.type.tensor_type.shape.dim[0].dim_param:
            raise ExportError(f"The batch axis of {edge.name} was exported as a constant.")
    for node in model.graph.node:
        if node.op_type == "GRU" and not any(a.name == "linear_before_reset" and a.i == 1 for a in node.attribute):
            raise ExportError("A GRU was exported with its reset gate before the product: that is not torch's GRU.")
    opset = max(entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"})
    if opset < MINIMUM_OPSET:
        raise ExportError(f"The graph was exported with opset {opset}, but {MINIMUM_OPSET} is needed.")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"The exported graph is not valid ONNX: {error}.") from error
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _strip_fields(model: onnx.ModelProto) -> None:
    graph = model.graph
    parts = (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info)
    for part in (*parts, *model.functions):
        part.ClearField("doc_string")
        if "metadata_props" in part.DESCRIPTOR.fields_by_name:
            part.ClearField("metadata_props")
    graph.ClearField("value_info")  # shapes of intermediate values: any reader infers them


def _check_parity(who: str, content: bytes, flat: nn.Module, samples: Tensor, links: Sequence[Tensor]) -> None:
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    for size in PARITY_BATCHES:
        inputs = [samples[:size], *(link[:size] for link in links)]
        with torch.no_grad():
            expected = [output.numpy() for output in flat(*inputs)]
        feed = {edge.name: value.numpy() for edge, value in zip(session.get_inputs(), inputs, strict=True)}
        for output, found in zip(expected, session.run(None, feed), strict=True):
            compare(f"{who} at batch size {size}", output, found)


def compare(where: str, expected: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> None:
    """Raise ExportError when `found` (onnxruntime) is not `expected` (torch) up to rounding.

    For logits, an argmax may only differ where the two best are closer than the tolerance; within it the maximum
    error already says so, so one bound serves both.
    """
    scale = max(1.0, float(np.abs(expected).max()))
    error = float(np.abs(expected - found).max())
    if not error <= TOLERANCE * scale:
        raise ExportError(f"{where}: onnxruntime differs from torch by {error:.2g} (values up to {scale:.2g}).")
