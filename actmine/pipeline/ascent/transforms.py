"""Transforms: what the network sees of a picture, a little different at every step, so that no single pixel counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from actmine.pipeline.ascent.recipe import Moment, Schedule


@dataclass(frozen=True, slots=True)
class Jitter:
    """Shifts pictures by up to `share` of their smaller side in each direction, around the edges. DeepDream."""

    share: float

    def __call__(self, pictures: Tensor, now: Moment) -> Tensor:
        """All pictures shifted alike."""
        reach = int(self.share * min(pictures.shape[2:]))
        down, right = torch.randint(-reach, reach + 1, (2,), generator=now.random).tolist()
        return shift(down, right)(pictures)


@dataclass(frozen=True, slots=True)
class NormalJitter:
    """Shifts pictures around the edges by normal offsets, as crops do that fall mostly on the middle (deepdraw).

    A picture is `zoom` times as large as a crop; the offset's deviation is 0.3 of the difference, at most half of it.
    """

    zoom: float

    def __call__(self, pictures: Tensor, now: Moment) -> Tensor:
        """All pictures shifted alike."""
        room = min(pictures.shape[2:]) * (1 - 1 / self.zoom)
        offsets = (0.3 * room * torch.randn(2, generator=now.random)).clamp(-room / 2, room / 2)
        down, right = offsets.round().int().tolist()
        return shift(down, right)(pictures)


@dataclass(frozen=True, slots=True)
class Pad:
    """A margin of `share` of the smaller side around the pictures, grey of `colour` (0..1). lucid."""

    share: float
    colour: float = 0.5

    def __call__(self, pictures: Tensor, now: Moment) -> Tensor:
        """Larger pictures."""
        margin = round(self.share * min(pictures.shape[2:]))
        return functional.pad(pictures, (margin,) * 4, value=self.colour)


@dataclass(frozen=True, slots=True)
class RandomCut:
    """Cuts off `share` of the smaller side, in each direction, wherever chance has it: lucid's jitter."""

    share: float

    def __call__(self, pictures: Tensor, now: Moment) -> Tensor:
        """Smaller pictures, all cut alike."""
        height, width = pictures.shape[2:]
        off = round(self.share * min(height, width))
        top, left = torch.randint(0, off + 1, (2,), generator=now.random).tolist()
        return pictures[:, :, top : height - off + top, left : width - off + left]


@dataclass(frozen=True, slots=True)
class Turn:
    """Scales and rotates pictures about their middle by one of `scales` and one of `degrees`. lucid.

    The frame stays; what comes into it from outside is grey of `colour` (0..1).
    """

    scales: tuple[float, ...]
    degrees: tuple[float, ...]
    colour: float = 0.5

    def __call__(self, pictures: Tensor, now: Moment) -> Tensor:
        """All pictures turned alike."""
        return turned(pictures, _one_of(self.scales, now), _one_of(self.degrees, now), self.colour)


@dataclass(frozen=True, slots=True)
class Noise:
    """Adds Gaussian noise of deviation `sigma` (colours in 0..1), the same for all pictures. MACO."""

    sigma: Schedule

    def __call__(self, pictures: Tensor, now: Moment) -> Tensor:
        """The noisy pictures."""
        noise = torch.randn(pictures.shape[1:], generator=now.random).to(pictures)
        return pictures + self.sigma(now.share) * noise


@dataclass(frozen=True, slots=True)
class Crops:
    """Several square crops of each picture, scaled to its size: the network sees `views` pictures for one. MACO.

    `share` is a crop's side as a share of the picture's, cut off at 1; it varies by a deviation of `spread`, and crops
    lie normally around the middle, inside the picture.
    """

    views: int
    share: Schedule
    spread: float = 0.05

    def __call__(self, pictures: Tensor, now: Moment) -> Tensor:
        """`[views * B, C, H, W]`: one crop of all pictures, then the next one of all."""
        crops = []
        for _ in range(self.views):
            across, down, varied = torch.randn(3, generator=now.random).tolist()
            side = min(max(self.share(now.share) + self.spread * varied, 0.05), 1.0)
            # In the coordinates of grid_sample, -1..1.
            x, y = (min(max(0.3 * offset, side - 1), 1 - side) for offset in (across, down))
            crops.append(_sampled(pictures, [[side, 0, x], [0, side, y]]))
        return torch.cat(crops)


def turned(pictures: Tensor, scale: float, degrees: float, colour: float) -> Tensor:
    """`pictures` scaled and rotated (clockwise) about their middle, bilinear; `colour` comes in from outside."""
    height, width = pictures.shape[2:]
    cosine, sine = (turn(math.radians(degrees)) / scale for turn in (math.cos, math.sin))
    rows = [[cosine, sine * height / width, 0], [-sine * width / height, cosine, 0]]
    return _sampled(pictures - colour, rows) + colour


def _sampled(pictures: Tensor, rows: Sequence[Sequence[float]]) -> Tensor:
    where = torch.tensor([rows], device=pictures.device, dtype=pictures.dtype).expand(len(pictures), 2, 3)
    grid = functional.affine_grid(where, list(pictures.shape), align_corners=False)
    return functional.grid_sample(pictures, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _one_of(values: tuple[float, ...], now: Moment) -> float:
    return values[int(torch.randint(len(values), (1,), generator=now.random))]


def shift(down: int, right: int) -> Callable[[Tensor], Tensor]:
    """Moves pictures by whole pixels; what leaves on one side returns on the other."""
    if not down and not right:
        return lambda pictures: pictures
    return lambda pictures: pictures.roll((down, right), (2, 3))
