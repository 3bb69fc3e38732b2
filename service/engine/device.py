"""Which device the members run on: asked once at start-up, and said out loud."""

from __future__ import annotations

import logging
from typing import Literal

import numpy as np
import onnxruntime as ort

from service.engine.cpu import CpuExecutor
from service.engine.cuda import DeviceExecutor
from service.engine.executor import Executor
from service.engine.providers import CUDA, DeviceUnavailable, cuda_provider, has_cuda_driver
from service.engine.rows import RowMover

log = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]


def open_executor(
    device: Device, cpu_threads: int | None = None, member_memory_bytes: int = 0, *, side_by_side: bool = False
) -> Executor:
    """An executor on the wanted device; `auto` takes CUDA where it works and says why where it does not.

    Args:
        device: where members run.
        cpu_threads: threads of one member on the CPU, at most; None: as `compute_threads` says.
        member_memory_bytes: device memory of one member on CUDA; 0 leaves it unbounded.
        side_by_side: whether waves may be run where the device can; on CUDA it cannot.

    Raises:
        DeviceUnavailable: `cuda` was asked for and cannot be had.
    """
    if device == "cpu":
        return CpuExecutor(cpu_threads, side_by_side=side_by_side)
    try:
        check_cuda()
    except DeviceUnavailable as reason:
        if device == "cuda":
            raise
        level = logging.WARNING if has_cuda_driver() else logging.INFO
        log.log(level, "running on the CPU: %s", reason)
        return CpuExecutor(cpu_threads, side_by_side=side_by_side)
    log.info("running on the CUDA device")
    return DeviceExecutor(cuda_provider(member_memory_bytes))


def check_cuda() -> None:
    """Run a one-node graph on the CUDA device.

    Raises:
        DeviceUnavailable: there is no device, or its libraries are missing.
    """
    if not has_cuda_driver():
        raise DeviceUnavailable("there is no CUDA driver on this machine.")
    # The CUDA libraries come as Python packages; onnxruntime finds them only after this call.
    ort.preload_dlls()
    try:
        zeros = ort.OrtValue.ortvalue_from_numpy(np.zeros((2, 1), np.float32), "cuda", 0)
        RowMover(CUDA, "cuda").gather(zeros, [1]).numpy()
    except Exception as error:
        # onnxruntime raises bare exceptions of several kinds, depending on which library is missing.
        raise DeviceUnavailable(f"onnxruntime cannot use the CUDA device: {error}") from error
