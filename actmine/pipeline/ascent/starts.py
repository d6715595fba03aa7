"""A canvas of pixels that begins with a picture of its own for every unit, as the mean of exemplars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from actmine.pipeline.ascent.canvas import Pixels
from actmine.pipeline.ascent.recipe import Look, Size


@dataclass(frozen=True, slots=True)
class Given:
    """Pictures as they are, starting from given ones with Gaussian noise of deviation `noise` (colours in 0..1).

    Where none is given they start from the network's mean colour.
    """

    noise: float

    def start(self, seeds: Sequence[int], size: Size, look: Look) -> Tensor:
        """Pictures to begin with where none is given, one a seed: `[B, C, H, W]`."""
        return Pixels(self.noise).start(seeds, size, look)

    def begun(self, pictures: Tensor, seeds: Sequence[int], look: Look) -> Tensor:
        """`pictures` `[B, C, H, W]` with noise, each of its own seed."""
        noise = torch.stack(
            [torch.randn(pictures.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        )
        return self.kept_valid(pictures + self.noise * noise)

    def picture(self, parameters: Tensor, size: Size, look: Look) -> Tensor:
        """The same."""
        return parameters

    def kept_valid(self, parameters: Tensor) -> Tensor:
        """The nearest pictures that a screen can show."""
        return parameters.clamp(0, 1)
