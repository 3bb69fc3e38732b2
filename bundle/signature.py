"""Whether an ONNX graph has the inputs and outputs that its manifest entry promises."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from bundle.edges import Connection, Tensor
from bundle.errors import InvalidBundle
from bundle.manifest import Manifest

_ONNX_TYPES = {"float": "float32", "double": "float64"}


class Edge(Protocol):
    """An input or output as onnxruntime describes it (`NodeArg`)."""

    @property
    def name(self) -> str:
        """Name in the graph."""

    @property
    def type(self) -> str:
        """For example `tensor(float)`."""

    @property
    def shape(self) -> Sequence[int | str | None]:
        """Batch axis first; a dynamic axis is a name or None."""


def check_signature(
    file: Path, manifest: Manifest, index: int, inputs: Sequence[Edge], outputs: Sequence[Edge]
) -> None:
    """Check the graph of member `index` against the manifest.

    A graph may leave out the bundle's input if it reads only earlier activations.

    Raises:
        InvalidBundle: an edge is missing, unknown, or of another dtype or shape than promised.
    """
    member = manifest.members[index]
    _check(file, manifest.input, _fed(member.connections), member.outputs, inputs, outputs)


def check_chunk_signature(
    file: Path, manifest: Manifest, index: int, inputs: Sequence[Edge], outputs: Sequence[Edge]
) -> None:
    """The same for the chunk graph of member `index`.

    Raises:
        InvalidBundle: an edge is missing, unknown, or of another dtype or shape than promised.
    """
    chunk = manifest.streaming[index]
    before = [Tensor(name=state.input, dtype=state.dtype, shape=state.shape) for state in chunk.states]
    after = [Tensor(name=state.output, dtype=state.dtype, shape=state.shape) for state in chunk.states]
    fed = [*_fed(chunk.connections), *before]
    _check(file, manifest.chunk_input, fed, [*chunk.outputs, *after], inputs, outputs)


def _fed(connections: Sequence[Connection]) -> list[Tensor]:
    return [Tensor(name=link.input, dtype=link.dtype, shape=link.shape) for link in connections]


def _check(
    file: Path,
    raw: Tensor,
    fed: Sequence[Tensor],
    given: Sequence[Tensor],
    inputs: Sequence[Edge],
    outputs: Sequence[Edge],
) -> None:
    found = {edge.name: edge for edge in inputs}
    if raw.name in found or not fed:
        fed = [*fed, raw]
    _compare(file, "input", fed, found)
    _compare(file, "output", given, {edge.name: edge for edge in outputs})


def _compare(file: Path, kind: str, expected: Sequence[Tensor], found: dict[str, Edge]) -> None:
    if {tensor.name for tensor in expected} != set(found):
        names = ", ".join(sorted(tensor.name for tensor in expected))
        raise InvalidBundle(f"{file} has {kind}s {', '.join(sorted(found))}, but the manifest says {names}.")
    for tensor in expected:
        edge = found[tensor.name]
        if _dtype(edge) != tensor.dtype or list(edge.shape[1:]) != list(tensor.shape):
            raise InvalidBundle(
                f"{file}: {kind} {tensor.name!r} is {_dtype(edge)}{list(edge.shape[1:])} per sample, "
                f"but the manifest says {tensor.dtype}{list(tensor.shape)}."
            )
        if not edge.shape or isinstance(edge.shape[0], int):
            raise InvalidBundle(f"{file}: {kind} {tensor.name!r} has a fixed batch axis; export it with a dynamic one.")


def _dtype(edge: Edge) -> str:
    onnx_type = edge.type.removeprefix("tensor(").removesuffix(")")
    return _ONNX_TYPES.get(onnx_type, onnx_type)
