"""Mean, deviation and firing rate of every unit's image activations, accumulated as sums."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from pipeline.taps import Readings

_COUNTS = ("images", "nan", "fired")
_SUMS = ("sum", "square_sum")


class Statistics:
    """Counts and sums over the image activations of each unit; NaN ones are counted and left out.

    `images`: activations that are numbers; `nan`: those that are not; `fired`: those above zero.
    """

    def __init__(self, units: int, device: torch.device | str = "cpu") -> None:
        sums = torch.float32 if torch.device(device).type == "mps" else torch.float64
        self._of = {name: torch.zeros(units, dtype=torch.int64, device=device) for name in _COUNTS}
        self._of |= {name: torch.zeros(units, dtype=sums, device=device) for name in _SUMS}

    def update(self, readings: Readings, images: Tensor) -> None:
        """Takes in one batch: `readings` `[B, U]`."""
        nan = readings.maximum.isnan()
        values = readings.maximum.to(self._of["sum"].dtype).masked_fill(nan, 0.0)
        missing = nan.sum(0)
        self._of["nan"] += missing
        self._of["images"] += len(nan) - missing
        self._of["fired"] += (values > 0).sum(0)
        self._of["sum"] += values.sum(0)
        self._of["square_sum"] += values.square().sum(0)

    def merge(self, other: Self) -> None:
        """Takes in what another saw of other images."""
        for name, total in self._of.items():
            total += other._of[name]

    def shift(self, images: int) -> None:
        """Statistics know no image numbers."""

    def state(self) -> dict[str, Tensor]:
        """Each count (int64) and sum (float64), `[U]`."""
        return dict(self._of)

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Self:
        """The accumulator whose `state` it was."""
        self = cls(len(state["images"]), state["images"].device)
        self._of = dict(state)
        return self

    def summary(self) -> dict[str, Tensor]:
        """The statistical columns of the units table by name, each `[U]`; NaN for a unit that saw no image."""
        images = self._of["images"]
        mean = self._of["sum"] / images
        variance = self._of["square_sum"] / images - mean.square()
        return {
            "images_seen": images,
            "nan_count": self._of["nan"],
            "activation_mean": mean,
            "activation_std": variance.clamp(min=0).sqrt(),
            "firing_rate": self._of["fired"].to(mean.dtype) / images,
        }
