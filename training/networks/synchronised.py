"""Batch normalisation over the batches of all processes, on any device and for shares of any size.

torch's own SyncBatchNorm exists on GPUs only, so that nobody could test on a CPU what a GPU will compute.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from training import ranks

Network = TypeVar("Network", bound=nn.Module)


def synchronise(network: Network) -> Network:
    """Make every batch normalisation of `network` one over all processes, in place; nothing when there is only one."""
    if ranks.size() > 1:
        for module in network.modules():
            if type(module) in _SYNCHRONISED:
                module.__class__ = _SYNCHRONISED[type(module)]  # the same parameters, buffers and names of both
    return network


class _Synchronised(_BatchNorm):
    """In training mode mean and variance are of the whole batch, of which a process may hold any part, even none."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, ...) to the same shape."""
        if not self.training or ranks.size() == 1:
            normalised: Tensor = super().forward(x)
            return normalised
        axes, shape = [0, *range(2, x.ndim)], (1, -1, *[1] * (x.ndim - 2))
        wide = x.float()
        samples = torch.full((1,), wide.numel() / wide.shape[1], device=x.device)
        sums = _sum(torch.cat([wide.sum(dim=axes), samples]))
        everything, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
        centred = wide - mean.view(shape)
        # The second sum is of centred values: the difference of two large sums would lose the digits of a small one.
        variance = _sum(centred.square().sum(dim=axes)) / everything
        self._follow(mean.detach(), variance.detach() * everything / (everything - 1))
        scale = (variance + self.eps).rsqrt() * self.weight
        normalised = centred * scale.view(shape) + self.bias.view(shape)
        return normalised.to(x.dtype)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics, which evaluation uses; `variance` is the unbiased one."""
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            return
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance, self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)


class _Sum(torch.autograd.Function):
    """Over all processes. What each of them adds enters everybody's loss, so the gradient is a sum as well."""

    @staticmethod
    def forward(context: object, value: Tensor) -> Tensor:
        return ranks.total(value)

    @staticmethod
    def backward(context: object, gradient: Tensor) -> Tensor:
        return ranks.total(gradient)


def _sum(value: Tensor) -> Tensor:
    summed: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return summed


class SynchronisedBatchNorm1d(_Synchronised, nn.BatchNorm1d):
    """For (n, C) and (n, C, T)."""


class SynchronisedBatchNorm2d(_Synchronised, nn.BatchNorm2d):
    """For (n, C, H, W)."""


_SYNCHRONISED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: SynchronisedBatchNorm1d,
    nn.BatchNorm2d: SynchronisedBatchNorm2d,
}
