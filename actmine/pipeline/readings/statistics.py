"""Mean, deviation, firing rate and extremes of every unit's image activations."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from actmine.pipeline.network.devices import runs_triton
from actmine.pipeline.readings.batch_index import BatchIndex
from actmine.pipeline.readings.taps import Readings

_COUNTS = ("images", "nan", "fired")
_SUMS = ("sum", "square_sum")
_NONE = {"maximum": -torch.inf, "minimum": torch.inf}


class Statistics:
    """Counts, sums and extremes of the image activations of each unit; NaN ones are counted and left out.

    `images`: activations that are numbers; `nan`: those that are not; `fired`: those above zero.
    """

    def __init__(self, units: int, device: torch.device | str = "cpu") -> None:
        sums = torch.float32 if torch.device(device).type == "mps" else torch.float64
        self._of = {name: torch.zeros(units, dtype=torch.int64, device=device) for name in _COUNTS}
        self._of |= {name: torch.zeros(units, dtype=sums, device=device) for name in _SUMS}
        self._of |= {name: torch.full((units,), none, device=device) for name, none in _NONE.items()}

    def update(self, readings: Readings, index: BatchIndex) -> None:
        """Takes in one batch: `readings` `[B, U]`."""
        numbers = readings.maximum
        if runs_triton(numbers.device):
            from actmine.pipeline.readings.unit_kernels import add_statistics

            add_statistics(self._of, numbers.contiguous())
            return
        nan = None if readings.complete else numbers.isnan()
        self._of["images"] += len(numbers)
        if nan is not None:
            missing = nan.sum(0)
            self._of["nan"] += missing
            self._of["images"] -= missing
        for name, none in _NONE.items():
            extreme = numbers if nan is None else numbers.masked_fill(nan, none)
            self._extend(name, extreme.amax(0) if name == "maximum" else extreme.amin(0))
        values = (numbers if nan is None else numbers.masked_fill(nan, 0.0)).to(self._of["sum"].dtype)
        self._of["fired"] += (numbers > 0).sum(0)
        self._of["sum"] += values.sum(0)
        self._of["square_sum"] += values.square().sum(0)

    def merge(self, other: Self) -> None:
        """Takes in what another saw of other images."""
        for name in (*_COUNTS, *_SUMS):
            self._of[name] = self._of[name] + other._of[name]
        for name in _NONE:
            self._extend(name, other._of[name])

    def shift(self, images: int) -> None:
        """Statistics know no image numbers."""

    def images(self) -> Tensor:
        """None."""
        return torch.empty(0, dtype=torch.int64)

    def state(self) -> dict[str, Tensor]:
        """Each count (int64), sum (float64) and extreme (float32, infinite where there is no number), `[U]`."""
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
            "activation_max": self._of["maximum"].where(images > 0, torch.nan),
            "activation_min": self._of["minimum"].where(images > 0, torch.nan),
            "activation_mean": mean,
            "activation_std": variance.clamp(min=0).sqrt(),
            "firing_rate": self._of["fired"].to(mean.dtype) / images,
            "images_fired": self._of["fired"],
        }

    def _extend(self, name: str, values: Tensor) -> None:
        further = torch.maximum if name == "maximum" else torch.minimum
        self._of[name] = further(self._of[name], values)
