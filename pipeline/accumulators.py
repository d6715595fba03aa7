"""What is kept of all readings: the kinds of accumulators, and what each of them can do."""

from __future__ import annotations

from typing import Protocol, Self

import torch
from torch import Tensor

from pipeline.statistics import Statistics
from pipeline.taps import Readings
from pipeline.topk import TopK


class Accumulator(Protocol):
    """What is kept of all readings: fed batch by batch, merged block by block, saved and restored."""

    def update(self, readings: Readings, images: Tensor) -> None:
        """Takes in one batch, `readings` `[B, U]` of the images numbered `images` `[B]`."""

    def merge(self, other: Self) -> None:
        """Takes in what another saw of other images."""

    def shift(self, images: int) -> None:
        """Adds `images` to every image number it holds."""

    def state(self) -> dict[str, Tensor]:
        """Its tensors by name."""

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Self:
        """The accumulator whose `state` it was."""


ACCUMULATORS: dict[str, type[Accumulator]] = {"topk": TopK, "statistics": Statistics}


def new_accumulators(units: int, k: int, device: torch.device) -> dict[str, Accumulator]:
    """One of each kind of `ACCUMULATORS`, empty."""
    return {"topk": TopK(units, k, device), "statistics": Statistics(units, device)}
