"""onnxruntime sessions that run where they were told to, or not at all."""

from __future__ import annotations

import ctypes

import onnxruntime as ort

from bundle import Bundle, InvalidBundle
from bundle.signature import check_signature

Provider = tuple[str, dict[str, str]]

CPU: Provider = ("CPUExecutionProvider", {})
CUDA: Provider = (
    "CUDAExecutionProvider",
    {
        # The exhaustive search costs seconds at each new shape; its gain is a few percent at best.
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
    },
)


class DeviceUnavailable(Exception):
    """The wanted device cannot be used; the message says what is missing."""


def session_options(threads: int) -> ort.SessionOptions:
    """Options of every session of the service."""
    options = ort.SessionOptions()
    # Threads that spin between runs would take the event loop's core away from it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return options


def open_session(graph: str | bytes, provider: Provider, threads: int = 1) -> ort.InferenceSession:
    """A session on `provider`; onnxruntime itself would fall back to the CPU without a word.

    Raises:
        DeviceUnavailable: onnxruntime fell back to another provider.
    """
    session = ort.InferenceSession(graph, session_options(threads), providers=[provider])
    if session.get_providers()[0] != provider[0]:
        raise DeviceUnavailable(
            f"onnxruntime fell back from {provider[0]} to {session.get_providers()[0]}: "
            "install the CUDA libraries with `pip install 'anytime-distil[cuda]'`."
        )
    return session


def open_member(bundle: Bundle, index: int, provider: Provider, threads: int = 1) -> ort.InferenceSession:
    """The session of one member, its graph checked against the manifest.

    Raises:
        InvalidBundle: onnxruntime cannot open the graph, or its inputs and outputs are not those of the manifest.
        DeviceUnavailable: onnxruntime fell back to another provider.
    """
    path = bundle.graph(index)
    try:
        session = open_session(str(path), provider, threads)
    except DeviceUnavailable:
        raise
    except Exception as error:
        # onnxruntime raises bare exceptions of a dozen kinds, one for each way a graph can be wrong.
        raise InvalidBundle(f"{path} cannot be opened by onnxruntime: {first_line(error)}") from error
    check_signature(path, bundle.manifest, index, session.get_inputs(), session.get_outputs())
    return session


def first_line(error: Exception) -> str:
    """What an exception says, without the stack that onnxruntime sometimes adds."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def has_cuda_driver() -> bool:
    """Whether a CUDA driver is installed; asked before onnxruntime, which prints errors where there is none."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
