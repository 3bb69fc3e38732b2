"""One seed, one result: seeds for every purpose, and the settings under which torch repeats itself to the bit."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose of a run, such as ``("member", round, attempt)``.

    Every consumer of randomness has its own, so that one more draw in one place moves nothing elsewhere.
    """
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # 63 bits: what both torch and numpy take


def seeded(seed: int, build: Callable[[], T]) -> T:
    """Call `build` (weight initialisation draws from torch's global generator) under `seed`, and restore it."""
    with torch.random.fork_rng(devices=[]):  # networks are built on the CPU
        torch.manual_seed(seed)
        return build()


@contextmanager
def repeatable(threads: int) -> Iterator[None]:
    """Fixed thread count and deterministic kernels inside the block; the caller's settings afterwards.

    The thread count is part of the configuration, because it decides in which order sums are taken.
    """
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.allow_tf32,
    )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS refuses to be deterministic
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.allow_tf32 = False  # else what a GPU calls float32 in a convolution has ten bits
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        torch.backends.cudnn.allow_tf32 = before[2]
