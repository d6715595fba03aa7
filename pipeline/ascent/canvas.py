"""Canvases: how the pictures of a batch are parameterized; so far as pixels in the valid colour range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.images import Preprocessing


@dataclass(frozen=True, slots=True)
class Pixels:
    """Pictures as `[B, C, H, W]` in 0..1, starting from the network's mean colour and Gaussian noise around it.

    `noise` is its standard deviation (0..1). Each picture's noise comes from its own seed and no other source.
    """

    colour: tuple[float, ...]
    noise: float
    device: torch.device

    def start(self, seeds: Sequence[int], height: int, width: int) -> Tensor:
        """Pictures to begin with, one per seed: `[B, C, height, width]`."""
        pictures = torch.empty(len(seeds), len(self.colour), height, width)
        for picture, seed in zip(pictures, seeds, strict=True):
            picture.normal_(0, self.noise, generator=torch.Generator().manual_seed(seed))
        pictures += torch.tensor(self.colour).view(1, -1, 1, 1)
        return self.valid(pictures.to(self.device))

    def valid(self, pictures: Tensor) -> Tensor:
        """The nearest pictures that a screen can show."""
        return pictures.clamp(0, 1)

    def enlarge(self, pictures: Tensor, fresh: Tensor, top: int, left: int) -> Tensor:
        """`pictures` put into the larger `fresh` ones at `top`, `left` (pixels, moved inside where they stick out)."""
        height, width = pictures.shape[2:]
        top = min(max(top, 0), fresh.shape[2] - height)
        left = min(max(left, 0), fresh.shape[3] - width)
        fresh[:, :, top : top + height, left : left + width] = pictures
        return fresh


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
