"""What every unit makes of every label in each half of the images: their number, sum, maximum; what follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from actmine.pipeline.network.devices import runs_triton, sent
from actmine.pipeline.readings.batch_index import NO_LABEL, BatchIndex, halves
from actmine.pipeline.readings.taps import Readings

MOST_ENTRIES = 1 << 26
"""Units times labels of which sums are kept, 32 bytes each: 2 GiB. A thousand classes of 67,000 units fit."""
_LEAST_SPREAD = 1e-4


class Labels:
    """Sums of each of `units` units by label and half (`batch_index.halves`). `labels` `[P]` ascend; `seen` `[P, 2]`.

    `seen` counts images; `missing` int32 counts NaN activations, `total` float64 and `maximum` float32 leave them out,
    all `[P, 2, U]`; `square` `[2, U]` sums squares over the images with a label. Where there are more than `most` pairs
    of a label and a unit, these have no columns: only `seen` goes on.
    """

    labels: Tensor
    seen: Tensor
    missing: Tensor
    total: Tensor
    maximum: Tensor
    square: Tensor
    BYTES_A_UNIT = 32 * 200  # of a block's state, with about so many labels

    def __init__(self, units: int, most: int = MOST_ENTRIES, device: torch.device | str = "cpu") -> None:
        self.units, self.most, self.device = units, most, torch.device(device)
        self._set(torch.empty(0, dtype=torch.int64), *self._empty(0))
        self.square = torch.zeros((2, units), dtype=self.total.dtype, device=self.device)

    @property
    def too_many(self) -> bool:
        """Whether there are too many labels for so many units."""
        return len(self.labels) * self.units > self.most

    def images_of(self, units: slice) -> np.ndarray:
        """Images of each label and half whose activation is a number, int32 `[P, 2, units]`."""
        images: np.ndarray = (self.seen[..., None] - self.missing[..., units]).cpu().numpy().astype(np.int32)
        return images

    def update(self, readings: Readings, index: BatchIndex) -> None:
        """Takes in one batch: `readings` `[B, U]`; images without a label count for none."""
        known = index.labels != NO_LABEL
        if not bool(known.any()):
            return
        every = bool(known.all())
        labels, half, values = index.labels[known], halves(index.identities), readings.maximum
        if not every:
            there = sent(known.nonzero()[:, 0], self.device)
            half, values = half[there], values[there]
        self._widen(labels.unique())
        row = 2 * sent(torch.searchsorted(self.labels, labels), self.device) + half
        _add_rows(self.seen.view(-1), row, torch.ones_like(row))
        if self.too_many:
            return
        if runs_triton(values.device):
            from actmine.pipeline.readings.unit_kernels import add_labelled

            missing, total, largest = (each.flatten(0, 1) for each in (self.missing, self.total, self.maximum))
            add_labelled(values.contiguous(), row, missing, total, largest, self.square)
            return
        numbers, largest = values, values
        if not readings.complete:
            nan = values.isnan()
            _add_rows(self.missing.flatten(0, 1), row, nan.to(torch.int32))
            numbers, largest = values.masked_fill(nan, 0.0), values.masked_fill(nan, -torch.inf)
        numbers = numbers.to(self.total.dtype)
        _add_rows(self.total.flatten(0, 1), row, numbers)
        _add_rows(self.square, half, numbers.square())
        self.maximum.flatten(0, 1).scatter_reduce_(0, row[:, None].expand_as(values), largest, "amax")

    def merge(self, other: Self) -> None:
        """Takes in what another saw of other images."""
        self._widen(other.labels.cpu())
        at = torch.searchsorted(self.labels, other.labels.cpu())
        at = at.to(self.device)
        self.seen[at] += other.seen
        if not self.too_many:  # nor has the other, then
            self.missing[at] += other.missing
            self.total[at] += other.total
            self.maximum[at] = torch.maximum(self.maximum[at], other.maximum)
            self.square = self.square + other.square

    def shift(self, images: int) -> None:
        """Labels know no image numbers."""

    def images(self) -> Tensor:
        """None."""
        return torch.empty(0, dtype=torch.int64)

    def state(self) -> dict[str, Tensor]:
        """Its tensors, and its `units` and `most`, `[2]`."""
        return {
            "labels": self.labels, "seen": self.seen, "missing": self.missing, "total": self.total,
            "maximum": self.maximum, "square": self.square, "sizes": torch.tensor([self.units, self.most]),
        }  # fmt: skip

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Self:
        """The accumulator whose `state` it was."""
        units, most = state["sizes"].tolist()
        self = cls(units, most, state["total"].device)
        self._set(state["labels"], state["seen"], state["missing"], state["total"], state["maximum"])
        self.square = state["square"]
        return self

    def _set(self, labels: Tensor, seen: Tensor, missing: Tensor, total: Tensor, maximum: Tensor) -> None:
        self.labels, self.seen = labels, seen
        self.missing, self.total, self.maximum = missing, total, maximum

    def _empty(self, labels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        shape = labels, 2, self.units if labels * self.units <= self.most else 0
        sums = torch.float32 if self.device.type == "mps" else torch.float64
        return (
            torch.zeros((labels, 2), dtype=torch.int64, device=self.device),
            torch.zeros(shape, dtype=torch.int32, device=self.device),
            torch.zeros(shape, dtype=sums, device=self.device),
            torch.full(shape, -torch.inf, device=self.device),
        )

    def _widen(self, labels: Tensor) -> None:
        """Makes room for further `labels`."""
        labels = torch.cat([self.labels, labels]).unique()
        if torch.equal(labels, self.labels):
            return
        seen, missing, total, maximum = self._empty(len(labels))
        at = sent(torch.searchsorted(labels, self.labels), self.device)
        seen[at] = self.seen
        if missing.numel():
            missing[at], total[at], maximum[at] = self.missing, self.total, self.maximum
        self._set(labels, seen, missing, total, maximum)


def _add_rows(to: Tensor, row: Tensor, values: Tensor) -> None:
    """Adds `values` `[B, U]` to the rows `[B]` of `to`, in the same order every time."""
    if to.device.type == "cpu" or not to.is_floating_point():
        to.index_add_(0, row, values)
    else:
        to.index_put_((row,), values, accumulate=True)


def means(images: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Mean image activation by label and unit, `[P, U]`; NaN where no image has a number."""
    with np.errstate(invalid="ignore"):
        mean: np.ndarray = total / np.where(images, images, np.nan)
    return mean


@dataclass(frozen=True, slots=True)
class Whole:
    """Some images as a whole, for each unit `[U]`: how many have a number, their mean and their population deviation.

    The deviation is NaN where there is none: below a ten-thousandth of the mean rounding would have its say.
    """

    images: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, images: np.ndarray, total: np.ndarray, square: np.ndarray) -> Whole:
        """From `images` and `total` `[P, U]` by label and the sum of squares `[U]`."""
        count = images.sum(0)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            mean = total.sum(0) / count
            deviation = np.sqrt(np.maximum(square / count - mean**2, 0))
            varies = (deviation > _LEAST_SPREAD * np.abs(mean)) & np.isfinite(deviation)
        return cls(count, mean, np.where(varies, deviation, np.nan))


def correlations(images: np.ndarray, total: np.ndarray, whole: Whole) -> np.ndarray:
    """Pearson's correlation of each unit with each label (1 for its images, 0 for others), `[P, U]`.

    From sums alone: (mean of the label - mean) / deviation * sqrt(p / (1 - p)), p its share of the images.
    NaN where a unit does not vary, and for a label of none or all of the images.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        share = images / whole.images
        odds = np.where((images > 0) & (share < 1), share / (1 - share), np.nan)
        found: np.ndarray = (means(images, total) - whole.mean) / whole.deviation * np.sqrt(odds)
    return found


def best_rows(score: np.ndarray) -> np.ndarray:
    """The row of the highest score of each unit `[U]`, the first of several; -1 where all are NaN."""
    known = ~np.isnan(score)
    best = np.where(known, score, -np.inf).argmax(0) if len(score) else np.zeros(score.shape[1], np.int64)
    return np.where(known.any(0), best, -1)


def selectivity(mean: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Class selectivity of each unit for the label in its `row` `[U]`: (m - r) / (m + r), -1 to 1 for one class alone.

    m is the mean of that class and r the mean of all other classes' means (Morcos et al., ICLR 2018). NaN where a
    mean is negative, for which it is not defined, where all are zero, with fewer than two classes, and for row -1.
    """
    known = ~np.isnan(mean)
    count = known.sum(0)
    values = np.where(known, mean, 0.0)
    own = values[row, np.arange(mean.shape[1])] if len(mean) else np.full(mean.shape[1], np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        rest = (values.sum(0) - own) / (count - 1)
        found: np.ndarray = (own - rest) / (own + rest)
    found[(count < 2) | (values.min(0, initial=0.0) < 0) | (row < 0)] = np.nan
    return found
