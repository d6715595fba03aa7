"""The canvas of pixels, how pictures become network input, and how they become 8-bit ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from actmine.pipeline.ascent.recipe import Look, Size
from actmine.pipeline.errors import UserError
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.storage.fingerprint import described


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


@dataclass(frozen=True, slots=True)
class TrainableInput:
    """Pictures as the weights of one dense layer without bias whose only input is the constant 1.

    With the network frozen behind it, ascent is training this layer. The pixels are its weights, which begin as the
    network's mean colour and, as dense layers do, with noise of their own: Gaussian, of deviation `noise`.
    """

    noise: float

    def start(self, seeds: Sequence[int], size: Size, look: Look) -> Tensor:
        """Weights to begin with, one layer a seed: `[B, C * H * W, 1]`."""
        return Pixels(self.noise).start(seeds, size, look).flatten(1)[:, :, None]

    def picture(self, parameters: Tensor, size: Size, look: Look) -> Tensor:
        """What the layers make of their input."""
        constant = torch.ones(len(parameters), 1, 1, device=parameters.device)
        return torch.bmm(parameters, constant).view(-1, len(look.mean), *size)

    def kept_valid(self, parameters: Tensor) -> Tensor:
        """The nearest weights that are colours."""
        return parameters.clamp(0, 1)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Details:
    """What is added to a given picture, so that it keeps its own sharpness from octave to octave. DeepDream.

    `given` is `[C, H, W]` in 0..1 and is scaled to the canvas. Where there is none, it is plain `colour` (0..1), and
    the details begin as Gaussian noise of deviation `noise`, each picture's from its own seed.
    """

    noise: float
    colour: float = 0.5
    given: Tensor | None = None

    def __repr__(self) -> str:
        return f"Details(noise={self.noise!r}, colour={self.colour!r}, given={described(self.given)})"

    def start(self, seeds: Sequence[int], size: Size, look: Look) -> Tensor:
        """Details to begin with, `[B, C, H, W]`. Raises `UserError` if the picture's channels are not the network's."""
        channels = len(look.mean)
        if self.given is None:
            return Pixels(self.noise, self.colour).start(seeds, size, look) - self.colour
        if self.given.dim() != 3 or self.given.shape[0] != channels:
            raise UserError(
                f"The picture to start from is {list(self.given.shape)}; this network needs [{channels}, H, W]."
            )
        return torch.zeros(len(seeds), channels, *size)

    def picture(self, parameters: Tensor, size: Size, look: Look) -> Tensor:
        """The given picture with its details."""
        return self._below(parameters) + parameters

    def kept_valid(self, parameters: Tensor) -> Tensor:
        """The nearest details that make a picture a screen can show."""
        below = self._below(parameters)
        return (parameters + below).clamp(0, 1) - below

    def _below(self, details: Tensor) -> Tensor:
        if self.given is None:
            return torch.full((1, 1, 1, 1), self.colour, device=details.device)
        return zoomed(self.given[None].to(details), (details.shape[2], details.shape[3])).clamp(0, 1)


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
    """Pictures in 0..1 as network input: mean and standard deviation of `Preprocessing`, per channel.

    `source` says which of red, green and blue each channel is, where these are not in order.
    """

    mean: Tensor
    std: Tensor
    source: tuple[int, ...] = ()

    @classmethod
    def of(cls, how: Preprocessing, device: torch.device) -> Normalized:
        """What `how` does to pixels."""
        mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (how.mean, how.std))
        return cls(mean, std, tuple(np.argsort(how.order).tolist()) if how.order else ())

    def __call__(self, pictures: Tensor) -> Tensor:
        """`[B, C, H, W]` in 0..1 to input of the same shape, in channels_last."""
        pictures = pictures[:, list(self.source)] if self.source else pictures
        return ((pictures - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
