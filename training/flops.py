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
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import PackedSequence
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

    def leave(module: nn.Module, given: tuple[object, ...], named: dict[str, object], output: object) -> None:
        cost = _cost(module, given, named, output)
        counted.total += cost
        if inside:
            counted.connections += cost
        if isinstance(module, Connection):
            inside.pop()

    hooks = [module.register_forward_pre_hook(enter) for module in network.modules()]
    hooks += [module.register_forward_hook(leave, with_kwargs=True) for module in network.modules()]
    try:
        with evaluating(network):
            network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return counted


def count_unknown(network: nn.Module, *inputs: object) -> float:
    """FLOPs of somebody else's network: by torch's counter, and by formula what it misses of recurrent layers.

    The counter knows operators, so that it sees attention and functional convolutions, which no formula here does; of
    LSTM and GRU it sees the products that a device does outside its fused kernel, so perhaps none. Never less than all
    formulas together.
    """
    missed, begun = 0.0, list[float]()

    def enter(_module: nn.Module, _given: object) -> None:
        begun.append(float(counter.get_total_flops()))

    def leave(module: nn.Module, given: tuple[object, ...], named: dict[str, object], output: object) -> None:
        nonlocal missed
        seen = counter.get_total_flops() - begun.pop()
        missed += max(0.0, _cost(module, given, named, output) - seen)

    recurrent = [module for module in network.modules() if isinstance(module, nn.LSTM | nn.GRU)]
    hooks = [module.register_forward_pre_hook(enter) for module in recurrent]
    hooks += [module.register_forward_hook(leave, with_kwargs=True) for module in recurrent]
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # fused attention is one operator that the counter does not know
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            by_formula = count(network, *inputs).total
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for hook in hooks:
            hook.remove()
    return max(by_formula, float(counter.get_total_flops()) + missed)


def parameters(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters())


def _cost(module: nn.Module, given: tuple[object, ...], named: dict[str, object], output: object) -> float:
    if isinstance(module, nn.LSTM | nn.GRU):
        return _recurrent(module, given[0] if given else named["input"])
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


def _recurrent(module: nn.LSTM | nn.GRU, given: object) -> float:
    """``2 g h (i + s)`` a step, layer and direction, with g = 4 gates for an LSTM and 3 for a GRU.

    The state s is h, or what an LSTM projects it to, for ``2 h s`` more.
    """
    x = given.data if isinstance(given, PackedSequence) else given
    if not isinstance(x, Tensor):
        raise TypeError("a recurrent layer takes a tensor or a packed sequence")
    gates, hidden, projected = (4 if isinstance(module, nn.LSTM) else 3), module.hidden_size, module.proj_size
    directions, state = (2 if module.bidirectional else 1), projected or hidden
    widths = [module.input_size] + [state * directions] * (module.num_layers - 1)
    steps = x.numel() // x.shape[-1]
    a_step = sum(2 * gates * hidden * (width + state) + 2 * hidden * projected for width in widths)
    return float(a_step * directions * steps)
