"""Sketches: each unit's image activations projected on a few random directions, from which correlations are estimated.

Every image has `length` signs of its own, drawn by its identity. A unit's sketch is the sum over images of its image
activation times these signs (Alon, Gibbons, Matias and Szegedy 1999; as a projection Achlioptas 2003). So the sketches
of parts of a dataset add up to that of the whole, and those of two networks that saw the same dataset compare. The
cosine of two centred sketches estimates the correlation of the two units over all images, whatever their distribution:
without bias but for terms of 1 / length, and with the error of `standard_error`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np
import torch
from torch import Tensor

from actmine.pipeline.network.devices import quickly, runs_triton
from actmine.pipeline.readings.batch_index import BatchIndex, mixed
from actmine.pipeline.readings.statistics_options import WORD
from actmine.pipeline.readings.taps import Readings
from actmine.pipeline.words import LENGTH

_OF_SKETCHES = 0x5E7C4  # makes these draws independent of others by the same identities
_NEXT = -0x61C8864680B583EB  # 0x9E3779B97F4A7C15, wrapped: SplitMix64's step from word to word
_LEAST_SPREAD = 1e-4


def standard_error(length: int) -> float:
    """Root mean square error of the estimated correlation of two units whose correlation is 0.

    At a correlation r about (1 - r**2) times as much. The mean absolute error is 0.8 times that.
    """
    return float(length**-0.5)


class Sketches:
    """The sketches of `units` units, and that of a unit that is 1 for every image.

    A NaN counts as the activation 0. A unit with an infinite activation has no sketch in the end.
    """

    MOST_UNITS = 1 << 17  # half a GiB at the usual length

    @classmethod
    def fit(cls, units: int) -> bool:
        """Whether they are kept of so many units: 4 KiB each at the usual length."""
        return units <= cls.MOST_UNITS

    def __init__(self, units: int, length: int = LENGTH, device: torch.device | str = "cpu") -> None:
        self.sums = torch.zeros((units, length), device=device)
        self.ones = torch.zeros(length, dtype=torch.int64, device=device)

    def update(self, readings: Readings, index: BatchIndex) -> None:
        """Takes in one batch: `readings` `[B, U]` of the images `seen` `[B]`."""
        drawn = signs(index.identities, len(self.ones))
        self.ones = self.ones + drawn.sum(0).to(torch.int64)
        if runs_triton(readings.maximum.device):
            from actmine.pipeline.readings.unit_kernels import in_two

            # Tensor cores multiply 11 bits: signs have fewer, values come as their upper 11 and the rest.
            with quickly(readings.maximum.device, "tf32"):
                self.sums.addmm_(in_two(readings.maximum.contiguous()).t(), drawn.repeat(2, 1))
        else:
            self.sums.addmm_(readings.maximum.nan_to_num(0.0, torch.inf, -torch.inf).t(), drawn)

    def merge(self, other: Self) -> None:
        """Takes in what another saw of other images."""
        self.sums, self.ones = self.sums + other.sums, self.ones + other.ones

    def shift(self, images: int) -> None:
        """Sketches know no image numbers."""

    def images(self) -> Tensor:
        """None."""
        return torch.empty(0, dtype=torch.int64)

    def state(self) -> dict[str, Tensor]:
        """The `sums` of the units, float32 `[U, L]`, and of `ones`, int64 `[L]`."""
        return {"sums": self.sums, "ones": self.ones}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Self:
        """The accumulator whose `state` it was."""
        self = cls(0, len(state["ones"]), state["ones"].device)  # what is there already needs no room
        self.sums, self.ones = state["sums"], state["ones"]
        return self


def signs(identities: Tensor, length: int) -> Tensor:
    """The signs of images by their identities (int64 `[B]`): 1 or -1, float32 `[B, length]`."""
    device = identities.device
    words = torch.arange(length // WORD, device=device) * _NEXT
    drawn = mixed((identities ^ _OF_SKETCHES)[:, None] + words)
    bits = (drawn[:, :, None] >> torch.arange(WORD, device=device)) & 1
    return bits.flatten(1).to(torch.float32) * 2 - 1


def centred(sums: np.ndarray, ones: np.ndarray, summary: Mapping[str, np.ndarray]) -> np.ndarray:
    """Sketches `[U, L]` of activations less their mean, of norm 1, float32: their products estimate correlations.

    `sums` and `ones` are those of `Sketches`, `summary` that of `Statistics` for the same units. Rows of NaN for units
    without variance: those whose deviation is below a ten-thousandth of their mean, where rounding would have its say,
    and those with an infinite activation.
    """
    images = summary["images_seen"] + summary["nan_count"]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = np.where(images > 0, summary["activation_mean"] * summary["images_seen"] / images, np.nan)
        found = sums.astype(np.float64) - mean[:, None] * ones
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        varies = summary["activation_std"] > _LEAST_SPREAD * np.abs(summary["activation_mean"])
    varies &= (summary["activation_max"] > summary["activation_min"]) & np.isfinite(found).all(1)
    found[~varies] = np.nan
    return found.astype(np.float32)
