"""Histograms of every unit's image activations, in buckets by the bits of a float, and quantiles from them.

Counts add up in any order to the same.
"""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from actmine.pipeline.network.devices import runs_triton
from actmine.pipeline.readings.batch_index import BatchIndex
from actmine.pipeline.readings.bucket_edges import (
    BUCKETS,
    COARSE_RELATIVE_ERROR,
    PROBABILITIES,
    RELATIVE_ERROR,
    edges,
    middles,
)
from actmine.pipeline.readings.buckets import bucket
from actmine.pipeline.readings.taps import Readings

__all__ = [
    "BUCKETS", "COARSE_RELATIVE_ERROR", "PROBABILITIES", "RELATIVE_ERROR", "Histograms", "bucket", "edges", "quantiles",
    "ranked",
]  # fmt: skip

_UNITS_TOGETHER = 256  # what is made of them on the way stays in the caches


class Histograms:
    """How many images fell into each of the `BUCKETS` of each of `units` units; NaN ones into none."""

    BYTES_A_UNIT = 2048  # of a block's state: those buckets only that any image fell into
    MOST_UNITS = 1 << 18  # 3.6 GB
    KIND: ClassVar[torch.dtype] = torch.int32

    @classmethod
    def fit(cls, units: int) -> bool:
        """Whether they are kept of so many units: 13.7 KB each."""
        return units <= cls.MOST_UNITS

    def __init__(self, units: int, device: torch.device | str = "cpu") -> None:
        self.units = units
        self._counts: Tensor | None = torch.zeros((units, BUCKETS), dtype=self.KIND, device=device)
        self._state: dict[str, Tensor] | None = None

    @property
    def counts(self) -> Tensor:
        """How many images fell into each bucket, `[U, BUCKETS]`; made of a state that was read when first asked for."""
        if self._counts is None:
            state = self._state or {}
            self._counts = torch.zeros((self.units, BUCKETS), dtype=self.KIND, device=state["rows"].device)
            self._counts[_places(state)] = state["counts"]
        return self._counts

    def update(self, readings: Readings, index: BatchIndex) -> None:
        """Takes in one batch: `readings` `[B, U]`."""
        self._count(readings.maximum, readings.complete)

    def merge(self, other: Self) -> None:
        """Takes in what another saw of other images."""
        counts, self._state = self.counts, None
        if other._counts is None:
            theirs = other.state()
            counts[_places(theirs)] += theirs["counts"]  # each place once
        else:
            counts.add_(other._counts)

    def shift(self, images: int) -> None:
        """Histograms know no image numbers."""

    def images(self) -> Tensor:
        """None."""
        return torch.empty(0, dtype=torch.int64)

    def state(self) -> dict[str, Tensor]:
        """The buckets that are not empty: `rows`, how many each unit has, their `buckets` and `counts`, in order."""
        if self._state is None:
            unit, bucket_of = self.counts.nonzero(as_tuple=True)
            rows = torch.bincount(unit, minlength=self.units).to(torch.int32)
            return {"rows": rows, "buckets": bucket_of.to(torch.int16), "counts": self.counts[unit, bucket_of]}
        return dict(self._state)

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Self:
        """The accumulator whose `state` it was."""
        self = cls(0, state["rows"].device)
        self.units, self._counts, self._state = len(state["rows"]), None, dict(state)
        return self

    def _count(self, activations: Tensor, complete: bool) -> None:
        """Counts what is a number of `[B, U]`; all are where they are `complete`."""
        counts, self._state = self.counts, None
        if runs_triton(activations.device):
            from actmine.pipeline.readings.unit_kernels import count

            count(counts, activations.contiguous())
            return
        units = len(counts)
        step = _UNITS_TOGETHER if counts.device.type == "cpu" else units
        for begin in range(0, units, max(step, 1)):
            part = activations[:, begin : begin + step].t().contiguous()
            ones = torch.ones_like(part, dtype=self.KIND)
            if not complete:
                ones.masked_fill_(part.isnan(), 0)
            counts[begin : begin + step].scatter_add_(1, bucket(part).to(torch.int64), ones)


def _places(state: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Unit and bucket of each of a state's counts."""
    rows = state["rows"]
    unit = torch.arange(len(rows), device=rows.device).repeat_interleave(rows)
    return unit, state["buckets"].to(torch.int64)


def quantiles(
    counts: np.ndarray, least: np.ndarray, most: np.ndarray, probabilities: tuple[float, ...] = PROBABILITIES
) -> np.ndarray:
    """Of each unit the activation below which that share of its images lies, `[U, P]`; NaN without images.

    `counts` `[U, BUCKETS]`; `least` and `most` `[U]` are the extremes. A quantile is the middle of the bucket that
    holds the image of that rank (the smallest whose share of images up to it reaches the probability), kept between
    the extremes, which are exact. Error: `RELATIVE_ERROR`, far from one `COARSE_RELATIVE_ERROR`.
    """
    places, images = ranked(counts, probabilities)
    values = np.clip(middles()[places], least[:, None], most[:, None])
    values[images == 0] = np.nan
    return values.astype(np.float32)


def ranked(counts: np.ndarray, probabilities: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The bucket `[U, P]` that holds the image at each share of a unit's images, and the number of images `[U]`."""
    images = counts.sum(1, dtype=np.int64)
    ranks = np.ceil(images[:, None] * np.array(probabilities)).clip(1, np.maximum(images, 1)[:, None])
    parts = (counts[begin : begin + _UNITS_TOGETHER] for begin in range(0, len(counts), _UNITS_TOGETHER))
    below = (row for part in parts for row in part.cumsum(1, dtype=np.int64))
    places = [np.searchsorted(row, wanted) for row, wanted in zip(below, ranks, strict=True)]
    return np.minimum(np.array(places).reshape(len(counts), len(probabilities)), BUCKETS - 1), images
