"""The training images as a network sees them: as they are, or shifted, mirrored and cut anew in every epoch.

The images lie on the training device as one array of raw values, and a batch of them is one gather by index: there are
no worker processes, and nothing crosses to the device but a few integers a sample and epoch. Those are drawn for
all samples at the start of an epoch, so what sample i looks like in it does not depend on the batch that asks, nor on
how many processes share the samples.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from training import ranks
from training.errors import BadConfig

Augmentation = Literal["none", "crop_flip", "crop_flip_cutout"]

PAD = 4
"""Pixels by which an image is moved at most in each direction; what moves in is black, the raw value 0."""
CUTOUT = 8
"""Side of the black square of `crop_flip_cutout`, in pixels; parts of it may lie outside of the image."""


class Views:
    """Samples x (N, H, W) or (N, C, H, W), this process's share of them, under one augmentation.

    Raises:
        BadConfig: samples that are no images are to be augmented.
    """

    def __init__(self, x: Tensor, augmentation: Augmentation = "none") -> None:
        check_images(augmentation, tuple(x.shape[1:]))
        self.x, self.augmentation = x, augmentation
        self._moves = torch.empty(0, 0, dtype=torch.int64)

    def redraw(self, generator: torch.Generator) -> None:
        """Draw how every sample looks from now on; draws nothing without augmentation."""
        if self.augmentation == "none":
            return
        height, width = self.x.shape[-2:]
        bounds = (2 * PAD + 1, 2 * PAD + 1, 2, height, width)  # top, left, mirrored, row and column of the cut
        samples = ranks.count(len(self.x))
        moves = torch.stack([torch.randint(bound, (samples,), generator=generator) for bound in bounds], dim=1)
        self._moves = ranks.share(moves).to(self.x.device)

    def __getitem__(self, batch: Tensor) -> Tensor:
        """The raw samples of `batch`, (n, *shape) of their own dtype, as they look in this epoch."""
        x = self.x[batch]
        if self.augmentation == "none":
            return x
        top, left, mirrored, row, column = self._moves[batch].unbind(dim=1)
        images = x if x.ndim == 4 else x[:, None]
        images = crop_flip(images, top, left, mirrored.bool())
        if self.augmentation == "crop_flip_cutout":
            images = cut_out(images, row, column)
        return images if x.ndim == 4 else images[:, 0]


def check_images(augmentation: Augmentation, shape: tuple[int, ...], *, sequences: bool = False) -> None:
    """Raise BadConfig when samples of `shape` cannot be augmented."""
    if augmentation != "none" and (sequences or len(shape) not in {2, 3}):
        raise BadConfig(
            f"augment={augmentation} is for images (H, W) or (C, H, W), not for samples of shape {list(shape)}: "
            "use augment=none."
        )


def crop_flip(x: Tensor, top: Tensor, left: Tensor, mirrored: Tensor) -> Tensor:
    """Each image with a black frame of `PAD`, cropped from its own corner, then mirrored or not.

    Args:
        x: (n, C, H, W).
        top: (n,) integers from 0 to 2 PAD; with `left` at PAD nothing moves.
        left: likewise.
        mirrored: (n,) bool.

    Returns:
        (n, C, H, W), in channels-last memory.
    """
    height, width = x.shape[-2:]
    framed = functional.pad(x, (PAD, PAD, PAD, PAD))
    rows = top[:, None] + torch.arange(height, device=x.device)
    columns = torch.arange(width, device=x.device).expand(len(x), -1)
    columns = left[:, None] + torch.where(mirrored[:, None], width - 1 - columns, columns)
    images = torch.arange(len(x), device=x.device)[:, None, None]
    return framed[images, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cut_out(x: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Each image (C, H, W) with a black square of side `CUTOUT` around its own (row, column)."""
    height, width = x.shape[-2:]
    in_rows = _within(torch.arange(height, device=x.device) - row[:, None])
    in_columns = _within(torch.arange(width, device=x.device) - column[:, None])
    return x.masked_fill((in_rows[:, :, None] & in_columns[:, None, :])[:, None], 0)


def _within(distance: Tensor) -> Tensor:
    return (distance >= -(CUTOUT // 2)) & (distance < CUTOUT - CUTOUT // 2)
