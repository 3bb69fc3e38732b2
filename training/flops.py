"""Floating point operations of a network by formula, one multiply-add as two.

Counted: convolutions, linear layers, LSTM and GRU, and what connections add. Not counted: biases,
activations, pooling and normalisation (folded into the convolution before it on export). Formulas, because common
counters miss recurrent layers; a test holds them against torch's own counter where that one is right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from training.connections import Connection
from training.modes import evaluating


@dataclass(slots=True)
class Count:
    """FLOPs per sample; `connections` is the part of `total` that reading earlier members costs."""

    total: float = 0
    connections: float = 0


def count(network: nn.Module, *inputs: object) -> Count:
    """Count one evaluation of `network` on `inputs`, which must be a batch of one sample."""
    counted = Count()
    inside: list[nn.Module] = []

    def enter(module: nn.Module, _inputs: object) -> None:
        if isinstance(module, Connection):
            inside.append(module)

    def leave(module: nn.Module, given: tuple[Tensor, ...], output: object) -> None:
        cost = _cost(module, given, output)
        counted.total += cost
        if inside:
            counted.connections += cost
        if isinstance(module, Connection):
            inside.pop()

    hooks = [module.register_forward_pre_hook(enter) for module in network.modules()]
    hooks += [module.register_forward_hook(leave) for module in network.modules()]
    try:
        with evaluating(network):
            network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return counted


def count_unknown(network: nn.Module, *inputs: object) -> float:
    """FLOPs of somebody else's network: by formula or by torch's counter, whichever sees more.

    The formulas know modules only, the counter operators only (attention, functional convolutions) and no recurrent
    layers; neither counts anything twice.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its fused attention is one operator that the counter does not know
    try:
        with FlopCounterMode(display=False) as counter:
            by_formula = count(network, *inputs).total
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return max(by_formula, float(counter.get_total_flops()))


def parameters(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters())


def _cost(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> float:
    if isinstance(module, nn.LSTM | nn.GRU):
        return _recurrent(module, inputs[0])
    if not isinstance(output, Tensor):
        return 0.0
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        taps = math.prod(module.kernel_size) * module.in_channels // module.groups
        return float(2 * taps * output.numel())
    if isinstance(module, nn.Linear):
        return float(2 * module.in_features * output.numel())
    if isinstance(module, Connection):
        return float(module.elementwise(output))
    return 0.0


def _recurrent(module: nn.LSTM | nn.GRU, x: Tensor) -> float:
    """``2 g h (i + h)`` a step, layer and direction, with g = 4 gates for an LSTM and 3 for a GRU."""
    gates, hidden = (4 if isinstance(module, nn.LSTM) else 3), module.hidden_size
    directions = 2 if module.bidirectional else 1
    widths = [module.input_size] + [hidden * directions] * (module.num_layers - 1)
    steps = x.numel() // x.shape[-1]
    return float(sum(2 * gates * hidden * (width + hidden) for width in widths) * directions * steps)
