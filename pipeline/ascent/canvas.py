"""The canvas of pixels, how pictures become network input, and how they become 8-bit ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.ascent.recipe import Look, Size
from pipeline.images import Preprocessing


@dataclass(frozen=True, slots=True)
class Pixels:
    """Pictures as they are, starting from a colour and Gaussian noise around it.

    `noise` is its standard deviation, `colour` that of every channel (0..1), the network's mean colour if None. Each
    picture's noise comes from its own seed and no other source.
    """

    noise: float
    colour: float | None = None

    def start(self, seeds: Sequence[int], size: Size, look: Look) -> Tensor:
        """Pictures to begin with, one a seed: `[B, C, H, W]`."""
        colours = look.mean if self.colour is None else (self.colour,) * len(look.mean)
        pictures = torch.empty(len(seeds), len(colours), *size)
        for picture, seed in zip(pictures, seeds, strict=True):
            picture.normal_(0, self.noise, generator=torch.Generator().manual_seed(seed))
        pictures += torch.tensor(colours).view(1, -1, 1, 1)
        return self.kept_valid(pictures)

    def picture(self, parameters: Tensor, size: Size, look: Look) -> Tensor:
        """The same."""
        return parameters

    def kept_valid(self, parameters: Tensor) -> Tensor:
        """The nearest pictures that a screen can show."""
        return parameters.clamp(0, 1)


def placed(pictures: Tensor, around: Tensor, top: int, left: int) -> Tensor:
    """`pictures` put into the larger ones `around` them at `top`, `left` (pixels, moved inside)."""
    height, width = pictures.shape[2:]
    top = min(max(top, 0), around.shape[2] - height)
    left = min(max(left, 0), around.shape[3] - width)
    around[:, :, top : top + height, left : left + width] = pictures
    return around


def zoomed(pictures: Tensor, size: Size) -> Tensor:
    """`pictures` scaled to another size, bilinear."""
    return functional.interpolate(pictures, size, mode="bilinear", align_corners=False, antialias=True)


def to_bytes(pictures: Tensor) -> np.ndarray:
    """Pictures in 0..1 `[B, C, H, W]` as 8-bit ones `[B, H, W, C]`."""
    return (pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def to_rgb(picture: np.ndarray) -> np.ndarray:
    """An 8-bit picture `[H, W, C]` of one or three channels as RGB `[H, W, 3]`."""
    return np.broadcast_to(picture, (*picture.shape[:2], 3)).copy()


@dataclass(frozen=True, slots=True)
class Normalized:
    """Pictures in 0..1 as network input: mean and standard deviation of `Preprocessing`, per channel."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, how: Preprocessing, device: torch.device) -> Normalized:
        """What `how` does to pixels."""
        mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (how.mean, how.std))
        return cls(mean, std)

    def __call__(self, pictures: Tensor) -> Tensor:
        """`[B, C, H, W]` in 0..1 to input of the same shape, in channels_last."""
        return ((pictures - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
