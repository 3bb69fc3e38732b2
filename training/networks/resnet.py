"""Residual networks for small images (He et al., 2016, section 4.2), as members, singles and published teachers.

A network of depth 6n + 2 has three stages of n blocks; the second and third halve the resolution and double the
channels. As published (``downsample="block"``) the first block of such a stage does that, with a shortcut that has no
parameters (option A). Connections come after it, so that they add depth only where a stage has two blocks. In a member
of one block a stage (``downsample="pool"``) averaging and a 1x1 convolution do it, the connections come next, and
every block is behind them.
"""

from __future__ import annotations

import dataclasses
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.connections import Kind, connect
from training.errors import BadConfig, BadTeacher
from training.networks.staged import LogitsOnly, Normalise, Stage, StagedNetwork, scale_widths

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of pixels from 0 to 1: what the published CIFAR-10 checkpoints were trained under."""
CIFAR_SHAPE = (3, 32, 32)


class BasicBlock(nn.Module):
    """``relu(shortcut(z) + norm(conv(relu(norm(conv(z))))))``; the shortcut subsamples and adds empty channels."""

    def __init__(self, before: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _convolution(before, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self._stride, self._more = stride, width - before

    def forward(self, z: Tensor) -> Tensor:
        """(N, before, H, W) to (N, width, H / stride, W / stride)."""
        inner = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(z)))))
        shortcut = z[:, :, :: self._stride, :: self._stride] if self._stride > 1 else z
        if self._more:
            front = self._more // 2
            shortcut = functional.pad(shortcut, (0, 0, 0, 0, front, self._more - front))
        return torch.relu(shortcut + inner)


@dataclass(frozen=True, kw_only=True)
class ResNet:
    """For images (C, H, W)."""

    widths: tuple[int, ...] = (16, 32, 64)
    """Channels of each stage, not falling."""
    blocks: int = 1
    """Blocks in each stage: n of 6n + 2."""
    downsample: Literal["block", "pool"] = "pool"
    """What halves the resolution: see the module."""

    @property
    def name(self) -> str:
        """Such as resnet-16-32-64x3 as published, or resnet-pool-16-32-64."""
        kind = "resnet" if self.downsample == "block" else "resnet-pool"
        return "-".join([kind, *map(str, self.widths)]) + (f"x{self.blocks}" if self.blocks > 1 else "")

    def build(
        self, normalise: Normalise, shape: tuple[int, ...], labels: int, kind: Kind = "none", sources: int = 0
    ) -> StagedNetwork:
        """See :class:`training.networks.ModelClass`."""
        if len(shape) != 3:
            raise BadConfig(f"A residual network takes images (C, H, W), not samples of shape {list(shape)}.")
        if list(self.widths) != sorted(self.widths):
            raise BadConfig(f"The stages of a residual network cannot become narrower: {list(self.widths)}.")
        if kind != "none" and sources and self.downsample == "block" and self.blocks == 1:
            raise BadConfig("A residual network with one block a stage is connected with downsample='pool' only.")
        stages: list[Stage] = []
        before = shape[0]
        for position, width in enumerate(self.widths):
            taken = int(position > 0 and self.downsample == "block")
            blocks = nn.Sequential(*(BasicBlock(width, width) for _ in range(self.blocks - taken)))
            connection = connect(kind, sources, width, spatial=True)
            stages.append(Stage(self._transition(position, before, width), connection, blocks))
            before = width
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, labels))
        network = StagedNetwork(normalise, nn.Identity(), stages, head)
        network.apply(_initialise)
        return network

    def scaled(self, factor: float) -> ResNet:
        """See :class:`training.networks.ModelClass`."""
        return dataclasses.replace(self, widths=scale_widths(self.widths, factor))

    def _transition(self, position: int, before: int, width: int) -> nn.Module:
        if position == 0:
            return nn.Sequential(_convolution(before, width), nn.BatchNorm2d(width), nn.ReLU())
        if self.downsample == "block":
            return BasicBlock(before, width, stride=2)
        pooled = nn.AvgPool2d(2, ceil_mode=True)
        return nn.Sequential(pooled, nn.Conv2d(before, width, kernel_size=1, bias=False), nn.BatchNorm2d(width))


def load_published(path: Path, depth: int, labels: int = 10) -> nn.Module:
    """A published CIFAR ResNet of `depth` as a teacher from raw pixels (N, 3, 32, 32) uint8 to logits (N, labels).

    The checkpoint is an ``.npz`` of plain arrays, or a PyTorch state dict (loaded without running any pickled code),
    with names ``conv1``, ``bn1``, ``layer1..3.<i>.conv1/bn1/conv2/bn2``, ``linear``; a prefix such as ``module.`` or
    ``resnet20/`` is dropped. Normalisation is inside, as :data:`IMAGENET_MEAN` says.

    Raises:
        BadTeacher: no such file, unreadable, or the weights of another network.
    """
    if depth < 8 or depth % 6 != 2:
        raise BadConfig(f"There is no CIFAR ResNet of depth {depth}: it is 6 n + 2, such as 20, 32, 44 or 56.")
    blocks = (depth - 2) // 6
    mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in (IMAGENET_MEAN, IMAGENET_STD))
    model_class = ResNet(blocks=blocks, downsample="block")
    network = model_class.build(Normalise(mean, 1 / std), CIFAR_SHAPE, labels)
    own = network.state_dict()
    found = {_own_name(name): (name, value) for name, value in _published(path, depth).items()}
    missing = sorted(name for name in own if name not in found and not _is_ours(name))
    strange = [name for key, (name, value) in found.items() if key not in own or value.shape != own[key].shape]
    if missing or strange:
        raise BadTeacher(
            f"{path} does not hold a CIFAR ResNet-{depth} of {labels} classes: {[*strange, *missing][0]} does not fit."
        )
    renamed = {key: value for key, (_, value) in found.items()}
    network.load_state_dict({**own, **renamed})
    return LogitsOnly(network, f"resnet-{depth}").eval()


def _published(path: Path, depth: int) -> dict[str, Tensor]:
    """Weights of one network, under their published names."""
    try:
        found = _read(path)
    except FileNotFoundError:
        raise BadTeacher(f"There is no checkpoint {path}.") from None
    except Exception as error:  # whatever torch's or numpy's reader stumbles over, the file is the reason
        raise BadTeacher(f"{path} cannot be read as a checkpoint ({type(error).__name__}).") from error
    several = f"resnet{depth}/"
    if any(name.startswith(several) for name in found):
        found = {name: value for name, value in found.items() if name.startswith(several)}
    plain = {re.sub(rf"^(module\.|{several})", "", name): value for name, value in found.items()}
    return {name: value for name, value in plain.items() if not _is_ours(name)}


def _is_ours(name: str) -> bool:
    """What no publisher decides: the normalisation, and a counter that nothing reads."""
    return name.startswith("normalise.") or name.endswith("num_batches_tracked")


def _read(path: Path) -> dict[str, Tensor]:
    if _is_npz(path):
        # numpy leaves a file that it opened itself open where it finds it damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: _tensor(arrays[name]) for name in arrays.files}
    content: Any = torch.load(path, map_location="cpu", weights_only=True)
    state: Mapping[str, Tensor] = content.get("state_dict", content)
    return {name: value.float() for name, value in state.items()}


def _is_npz(path: Path) -> bool:
    """PyTorch's own files are .zip too, but hold no .npy."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith(".npy") for name in archive.namelist())


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))


def _own_name(published: str) -> str:
    """Where a published weight goes: a stage's first block is its transition from the second stage on."""
    stem = published.replace("conv1.", "stages.0.transition.0.", 1).replace("bn1.", "stages.0.transition.1.", 1)
    layer = re.fullmatch(r"layer(\d)\.(\d+)\.(.+)", published)
    if layer is None:
        return published.replace("linear.", "head.2.", 1) if published.startswith("linear.") else stem
    stage, block, rest = int(layer[1]) - 1, int(layer[2]), layer[3]
    if stage == 0:
        return f"stages.0.block.{block}.{rest}"
    return f"stages.{stage}.block.{block - 1}.{rest}" if block else f"stages.{stage}.transition.{rest}"


def _convolution(before: int, width: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, width, kernel_size=3, stride=stride, padding=1, bias=False)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
