"""Rows of tensors on a device, selected and joined without leaving it.

onnxruntime offers no slicing of an `OrtValue`, so two one-node graphs do the work: Gather picks rows, Concat
joins two tensors. They run on the same provider as the members.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from service.engine.providers import Provider, open_session

OPSET = 18


class RowMover:
    """Gather and concatenate rows of device tensors."""

    def __init__(self, provider: Provider, device: str) -> None:
        self._provider = provider
        self._device = device
        self._sessions: dict[tuple[str, str, int], ort.InferenceSession] = {}

    def prepare(self, like: ort.OrtValue) -> None:
        """Open the sessions for tensors like this one now, rather than in the middle of a request."""
        for operator in ("Gather", "Concat"):
            self._session(operator, like)

    def gather(self, source: ort.OrtValue, rows: Sequence[int], into: ort.OrtValue | None = None) -> ort.OrtValue:
        """The given rows of `source`, in that order: in a new tensor, or written over all of `into`."""
        indices = ort.OrtValue.ortvalue_from_numpy(np.asarray(rows, np.int64), self._device, 0)
        return self._run("Gather", source, indices, into)

    def join(self, upper: ort.OrtValue, lower: ort.OrtValue) -> ort.OrtValue:
        """The rows of `upper`, then those of `lower`."""
        return self._run("Concat", upper, lower)

    def _run(
        self, operator: str, first: ort.OrtValue, second: ort.OrtValue, into: ort.OrtValue | None = None
    ) -> ort.OrtValue:
        session = self._session(operator, first)
        binding = session.io_binding()
        binding.bind_ortvalue_input("first", first)
        binding.bind_ortvalue_input("second", second)
        if into is None:
            binding.bind_output("result", self._device, 0)
        else:
            binding.bind_ortvalue_output("result", into)
        session.run_with_iobinding(binding)
        return binding.get_outputs()[0]

    def _session(self, operator: str, like: ort.OrtValue) -> ort.InferenceSession:
        key = (operator, like.data_type(), len(like.shape()))
        if key not in self._sessions:
            graph = _one_node(operator, like.element_type(), len(like.shape()))
            self._sessions[key] = open_session(graph.SerializeToString(), self._provider)
        return self._sessions[key]


def _one_node(operator: str, element_type: int, rank: int) -> onnx.ModelProto:
    """`result = operator(first, second)` along axis 0, all axes dynamic."""
    second = (
        helper.make_tensor_value_info("second", onnx.TensorProto.INT64, ["m"])
        if operator == "Gather"
        else helper.make_tensor_value_info("second", element_type, ["m", *(f"d{axis}" for axis in range(1, rank))])
    )
    axes = [f"d{axis}" for axis in range(1, rank)]
    graph = helper.make_graph(
        [helper.make_node(operator, ["first", "second"], ["result"], axis=0)],
        operator,
        [helper.make_tensor_value_info("first", element_type, ["n", *axes]), second],
        [helper.make_tensor_value_info("result", element_type, ["k", *axes])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
