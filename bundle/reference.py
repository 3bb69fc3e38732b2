"""The reference evaluation: what a bundle means, in the fewest lines that say it.

The trainer measures its prefixes with this loop and the tests hold the server against it. It knows nothing of
deadlines, batching or devices.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from bundle.signature import check_signature
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
        session = open_session(bundle, member.index)
        feed = {link.input: activations[link.from_member, link.from_output] for link in member.connections}
        if manifest.input.name in {edge.name for edge in session.get_inputs()}:
            feed[manifest.input.name] = inputs
        names = [output.name for output in member.outputs]
        outputs = dict(zip(names, session.run(names, feed), strict=True))
        activations.update({(member.index, name): value for name, value in outputs.items()})
        logits = outputs[member.logits]
        if member.combine == "replace":
            yield logits
        else:
            total = logits if total is None else total + logits
            yield total / np.float32(member.index + 1)


def open_session(bundle: Bundle, index: int) -> ort.InferenceSession:
    """One member on the CPU, its graph checked against the manifest."""
    path = bundle.graph(index)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    check_signature(path, bundle.manifest, index, session.get_inputs(), session.get_outputs())
    return session
