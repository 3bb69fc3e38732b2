"""onnxruntime sessions that run where they were told to, or not at all."""

from __future__ import annotations

import ctypes
import logging
from pathlib import Path

import onnxruntime as ort

from bundle import Bundle, InvalidBundle
from bundle.signature import check_chunk_signature, check_signature

log = logging.getLogger(__name__)

Provider = tuple[str, dict[str, str]]

CPU: Provider = ("CPUExecutionProvider", {})
CUDA: Provider = (
    "CUDAExecutionProvider",
    {
        # The exhaustive search costs seconds at each new shape; its gain is a few percent at best.
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        # A bundle's numbers, confidences and thresholds are those of float32: its convolutions have 24 bits, not 11.
        "use_tf32": "0",
    },
)

ARENA_LIMIT = "gpu_mem_limit"
"""Option of the CUDA provider: bytes that the arena of one session may hold."""

CUDART = ("libcudart.so.13", "libcudart.so.12")
"""Names of the CUDA runtime, newest first."""


class DeviceUnavailable(Exception):
    """The wanted device cannot be used; the message says what is missing."""


def cuda_provider(member_memory_bytes: int = 0) -> Provider:
    """CUDA with one stream for all sessions, so that members follow each other without waiting for the host.

    Args:
        member_memory_bytes: what the arena of one session may take, its weights included; 0 leaves it unbounded.
    """
    options = dict(CUDA[1])
    stream = _new_stream()
    if stream is None:
        log.warning("the CUDA runtime cannot be loaded by name: members do not share a stream")
    else:
        options["user_compute_stream"] = str(stream)
    if member_memory_bytes:
        options[ARENA_LIMIT] = str(member_memory_bytes)
    return CUDA[0], options


def without_limit(provider: Provider) -> Provider:
    """The same provider, whose sessions may take the memory they need."""
    return provider[0], {name: value for name, value in provider[1].items() if name != ARENA_LIMIT}


def with_graphs(provider: Provider) -> Provider | None:
    """The same provider, capturing graphs; None if it cannot."""
    return (provider[0], {**provider[1], "enable_cuda_graph": "1"}) if provider[0] == CUDA[0] else None


def _new_stream() -> int | None:
    """Address of a new CUDA stream; it lives as long as the process."""
    for name in CUDART:
        try:
            runtime = ctypes.CDLL(name)
        except OSError:
            continue
        stream = ctypes.c_void_p()
        # Not a non-blocking one: copies that onnxruntime does on the default stream must come in turn.
        if runtime.cudaStreamCreate(ctypes.byref(stream)) == 0:
            return stream.value
    return None


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
            "install the CUDA libraries with `pip install '.[cuda]'` in the repository."
        )
    # Nor later, when a run has failed.
    session.disable_fallback()
    return session


def open_member(bundle: Bundle, index: int, provider: Provider, threads: int = 1) -> ort.InferenceSession:
    """The session of one member, its graph checked against the manifest.

    Raises:
        InvalidBundle: onnxruntime cannot open the graph, or its inputs and outputs are not those of the manifest.
        DeviceUnavailable: onnxruntime fell back to another provider.
    """
    path = bundle.graph(index)
    session = _open_file(path, provider, threads)
    check_signature(path, bundle.manifest, index, session.get_inputs(), session.get_outputs())
    return session


def open_chunk(bundle: Bundle, index: int, provider: Provider, threads: int = 1) -> ort.InferenceSession:
    """The session of one member's chunk graph, checked against the manifest.

    Raises:
        InvalidBundle, DeviceUnavailable: as `open_member`.
    """
    path = bundle.chunk_graph(index)
    session = _open_file(path, provider, threads)
    check_chunk_signature(path, bundle.manifest, index, session.get_inputs(), session.get_outputs())
    return session


def _open_file(path: Path, provider: Provider, threads: int) -> ort.InferenceSession:
    try:
        return open_session(str(path), provider, threads)
    except DeviceUnavailable:
        raise
    except Exception as error:
        # onnxruntime raises bare exceptions of a dozen kinds, one for each way a graph can be wrong.
        raise InvalidBundle(f"{path} cannot be opened by onnxruntime: {first_line(error)}") from error


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
