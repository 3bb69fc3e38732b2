"""The processes of one run, as `torchrun` starts them: each owns every size-th sample, and everything of those samples.

Plain torch.distributed and no wrapper around the network. The networks are small, so one sum of all gradients
a step, in one piece, is what a wrapper could do at best; and what the wrappers do not do is most of the work here:
batch statistics (:mod:`training.networks.synchronised`), the cumulative residual S and the sums over all
samples that decide about a candidate.

Without `torchrun` every function here returns its argument, to the bit.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, distributed, nn

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others: as long as the first may need to export and measure a bundle."""

Rows = TypeVar("Rows", Tensor, npt.NDArray[Any])


@contextlib.contextmanager
def joined(device: str = "auto") -> Iterator[None]:
    """Inside, this process is one of those that `torchrun` started; alone, or without it, nothing happens.

    They talk through NCCL when `device` (auto, cpu or cuda) comes to mean CUDA, else through gloo.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or not distributed.is_available():
        yield
        return
    cuda = device != "cpu" and torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(local())
    distributed.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield
        # Nobody hangs up on one that is still listening.
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


def local() -> int:
    """Number of this process on its machine: which of the machine's CUDA devices is its own."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def size() -> int:
    """How many processes share the samples."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if size() > 1 else 0


def first() -> bool:
    """Whether this is the process that writes files and speaks."""
    return rank() == 0


def wait() -> None:
    """Until every process has come here."""
    if size() > 1:
        distributed.barrier()


@contextlib.contextmanager
def one_first() -> Iterator[None]:
    """One process of each machine goes through the block alone, then the others: what it downloads, they find.

    They go through it as well where it failed, so that each fails for itself and none waits in vain.
    """
    if local() != 0:
        wait()
    try:
        yield
    finally:
        if local() == 0:
            wait()


def share(rows: Rows) -> Rows:
    """This process's rows of something that all of them hold: every size-th, so each row has exactly one owner."""
    if size() == 1:
        return rows
    mine = rows[rank() :: size()]
    return mine.contiguous() if isinstance(mine, Tensor) else np.ascontiguousarray(mine)


def whole(mine: Tensor) -> Tensor:
    """The rows of all processes in their order: the inverse of :func:`share`."""
    if size() == 1:
        return mine
    rows = mine.new_zeros((count(len(mine)), *mine.shape[1:]))
    rows[rank() :: size()] = mine
    return total(rows)


def own(batch: Tensor) -> Tensor:
    """Of the sample numbers in `batch` those of this process, as positions in its share."""
    return batch if size() == 1 else batch[batch % size() == rank()] // size()


def count(samples: int) -> int:
    """The sum of every process's number of samples."""
    return samples if size() == 1 else int(total(torch.tensor(samples)))


def total(value: Tensor) -> Tensor:
    """The sum over all processes, element by element."""
    return _reduced(value, distributed.ReduceOp.SUM) if size() > 1 else value


def largest(value: Tensor) -> Tensor:
    """The maximum over all processes, element by element."""
    return _reduced(value, distributed.ReduceOp.MAX) if size() > 1 else value


def mean(value: Tensor, samples: int) -> Tensor:
    """The mean over all samples of something of which this process's `samples` have the mean `value`."""
    return value if size() == 1 else total(value.nan_to_num() * samples) / count(samples)


def logsumexp(x_NL: Tensor) -> Tensor:
    """``log sum_i exp(x_i)`` over the samples of all processes, (L,): the largest of all first, as one would alone."""
    if size() == 1:
        return x_NL.logsumexp(dim=0)
    floor = x_NL.new_full((1, *x_NL.shape[1:]), -torch.inf)  # a process may have no sample
    peak_L = largest(torch.cat([x_NL, floor]).amax(dim=0))
    return peak_L + total((x_NL - peak_L).exp().sum(dim=0)).log()


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up every process's gradients, in one piece."""
    if size() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    summed = total(torch.cat([gradient.flatten() for gradient in gradients]))
    pieces = torch.split(summed, [gradient.numel() for gradient in gradients])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view_as(gradient))


def _reduced(value: Tensor, operation: distributed.ReduceOp.RedOpType) -> Tensor:
    device = torch.device("cuda", local()) if distributed.get_backend() == "nccl" else torch.device("cpu")
    there = value.detach().to(device, copy=True).contiguous()
    distributed.all_reduce(there, operation)
    return there.to(value.device)
