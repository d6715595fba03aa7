"""Transforms: what the network sees of a picture, a little different at every step, so that no single pixel counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.ascent.recipe import Moment


@dataclass(frozen=True, slots=True)
class Jitter:
    """Shifts pictures by up to `share` of their smaller side in each direction, around the edges. DeepDream."""

    share: float

    def __call__(self, pictures: Tensor, now: Moment) -> Tensor:
        """All pictures shifted alike."""
        reach = int(self.share * min(pictures.shape[2:]))
        down, right = torch.randint(-reach, reach + 1, (2,), generator=now.random).tolist()
        return shift(down, right)(pictures)


def shift(down: int, right: int) -> Callable[[Tensor], Tensor]:
    """Moves pictures by whole pixels; what leaves on one side returns on the other."""
    if not down and not right:
        return lambda pictures: pictures
    return lambda pictures: pictures.roll((down, right), (2, 3))
