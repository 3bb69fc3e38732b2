"""The reference evaluation: what a bundle means, in the fewest lines that say it.

The trainer measures its prefixes with this loop and the tests hold the server against it. It knows nothing of
deadlines, batching or devices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from bundle.errors import InvalidBundle
from bundle.signature import check_chunk_signature, check_signature
from bundle.store import Bundle

Logits = npt.NDArray[np.float32]


def running_average(bundle: Bundle, inputs: npt.NDArray[Any]) -> Iterator[Logits]:
    """Yield the ensemble's answer after each member: logits of shape (samples, classes).

    The k-th item is the mean of the first k members' logits (Algorithm 1, line 13); a last member that says
    `combine: replace` yields its own logits. Each item is a fresh array.

    Args:
        bundle: an opened bundle.
        inputs: raw samples, (samples, *manifest.input.shape), in the manifest's dtype.

    Raises:
        InvalidBundle: a graph does not have the inputs and outputs that the manifest promises.
    """
    manifest = bundle.manifest
    activations: dict[tuple[int, str], npt.NDArray[Any]] = {}
    total: Logits | None = None
    for member in manifest.members:
        feed = {link.input: activations[link.from_member, link.from_output] for link in member.connections}
        outputs = _run(open_session(bundle, member.index), {manifest.input.name: inputs, **feed})
        activations.update({(member.index, name): value for name, value in outputs.items()})
        logits = outputs[member.logits]
        if member.combine == "replace":
            yield logits
        else:
            total = logits if total is None else total + logits
            yield total / np.float32(member.index + 1)


@dataclass(frozen=True, slots=True)
class StreamAnswer:
    """What the first `members` members say of the first `steps` steps."""

    steps: int
    members: int
    logits: Logits
    """Their running average (samples, classes): a fresh array."""


def running_average_chunks(bundle: Bundle, inputs: npt.NDArray[Any]) -> Iterator[StreamAnswer]:
    """Yield the answer to a stream after each chunk of its steps and, within a chunk, after each member.

    A member begins with zeros for its states and hands them to itself from chunk to chunk; earlier members' outputs
    are read for the same chunk only.

    Args:
        bundle: an opened bundle with chunk graphs.
        inputs: raw sequences, (samples, steps, *manifest.input.shape[1:]), in the manifest's dtype; the steps are a
            multiple of `manifest.chunk_steps`, else what is left over is not looked at.

    Raises:
        InvalidBundle: the bundle has no chunk graphs, or one is not what the manifest promises.
    """
    manifest, samples = bundle.manifest, len(inputs)
    if manifest.chunk_steps is None:
        raise InvalidBundle(f"{bundle.path} has no chunk graphs: it cannot answer a stream.")
    sessions = [open_chunk_session(bundle, index) for index in range(len(manifest.streaming))]
    states = [
        {state.input: np.zeros((samples, *state.shape), state.dtype) for state in chunk.states}
        for chunk in manifest.streaming
    ]
    for end in range(manifest.chunk_steps, inputs.shape[1] + 1, manifest.chunk_steps):
        steps = np.ascontiguousarray(inputs[:, end - manifest.chunk_steps : end])
        activations: dict[tuple[int, str], npt.NDArray[Any]] = {}
        total = np.zeros((samples, len(manifest.classes)), np.float32)
        for index, (chunk, session) in enumerate(zip(manifest.streaming, sessions, strict=True)):
            feed = {link.input: activations[link.from_member, link.from_output] for link in chunk.connections}
            found = _run(session, {manifest.input.name: steps, **feed, **states[index]})
            states[index] = {state.input: found[state.output] for state in chunk.states}
            activations.update({(index, name): value for name, value in found.items()})
            total = total + found[chunk.logits]
            yield StreamAnswer(end, index + 1, total / np.float32(index + 1))


def _run(session: ort.InferenceSession, known: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Every output of a graph, fed with what it reads of `known`."""
    names = [edge.name for edge in session.get_outputs()]
    feed = {edge.name: known[edge.name] for edge in session.get_inputs()}
    return dict(zip(names, session.run(names, feed), strict=True))


def open_session(bundle: Bundle, index: int) -> ort.InferenceSession:
    """One member on the CPU, its graph checked against the manifest."""
    path = bundle.graph(index)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    check_signature(path, bundle.manifest, index, session.get_inputs(), session.get_outputs())
    return session


def open_chunk_session(bundle: Bundle, index: int) -> ort.InferenceSession:
    """One member's chunk graph on the CPU, checked against the manifest."""
    path = bundle.chunk_graph(index)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    check_chunk_signature(path, bundle.manifest, index, session.get_inputs(), session.get_outputs())
    return session
