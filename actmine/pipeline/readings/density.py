"""At how many positions each latent of a dictionary fires, over all images: its density."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from actmine.pipeline.readings.batch_index import BatchIndex
from actmine.pipeline.readings.taps import Readings


class Density:
    """Positions of all images at which each of `units` units is above zero."""

    BYTES_A_UNIT = 8

    def __init__(self, units: int, device: torch.device | str = "cpu") -> None:
        self.positions = torch.zeros(units, dtype=torch.int64, device=device)

    def update(self, readings: Readings, index: BatchIndex) -> None:
        """Takes in one batch."""
        if readings.fired is not None:
            self.positions += readings.fired.sum(0)

    def merge(self, other: Self) -> None:
        """Takes in what another saw of other images."""
        self.positions = self.positions + other.positions

    def shift(self, images: int) -> None:
        """It knows no image numbers."""

    def images(self) -> Tensor:
        """None."""
        return torch.empty(0, dtype=torch.int64)

    def state(self) -> dict[str, Tensor]:
        """Positions `[U]`, int64."""
        return {"positions": self.positions}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Self:
        """The accumulator whose `state` it was."""
        self = cls(0)
        self.positions = state["positions"]
        return self
