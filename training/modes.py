"""Somebody else's network in eval mode, for as long as it takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Inside, `network` is in eval mode and no gradients are kept; then every module has the mode it came with.

    Each its own, because a part of a network in training may be frozen, such as batch statistics that must not move.
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(modes[network])  # what its author does on a change of mode is done
        for module, training in modes.items():
            module.training = training
