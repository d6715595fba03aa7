"""What every unit makes of every label: images, sum and maximum of its image activations; selectivity from them."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from torch import Tensor

from pipeline.network.devices import sent
from pipeline.readings.seen import NO_LABEL, Seen
from pipeline.readings.taps import Readings

MOST_ENTRIES = 1 << 26
"""Units times labels of which sums are kept, 16 bytes each: 1 GiB. A thousand classes of 67,000 units fit."""


class Labels:
    """Sums of each of `units` units by label. `labels` `[P]` ascending; `seen` `[P]` counts the images of each.

    `missing` int32 counts NaN activations, `total` float64 and `maximum` float32 leave them out, all `[P, U]`. Where
    there are more than `most` entries of them, they have no columns: only `seen` goes on.
    """

    labels: Tensor
    seen: Tensor
    missing: Tensor
    total: Tensor
    maximum: Tensor
    BYTES_A_UNIT = 16 * 200  # of a block's state, with about so many labels

    def __init__(self, units: int, most: int = MOST_ENTRIES, device: torch.device | str = "cpu") -> None:
        self.units, self.most, self.device = units, most, torch.device(device)
        self._set(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), *self._empty(0))

    @property
    def too_many(self) -> bool:
        """Whether there are too many labels for so many units."""
        return len(self.labels) * self.units > self.most

    def images_of(self, units: slice) -> np.ndarray:
        """Images of each label whose activation is a number, int32 `[P, units]`."""
        images: np.ndarray = (self.seen[:, None] - self.missing[:, units].cpu()).numpy().astype(np.int32)
        return images

    def update(self, readings: Readings, seen: Seen) -> None:
        """Takes in one batch: `readings` `[B, U]`; images without a label count for none."""
        known = seen.labels != NO_LABEL
        if not bool(known.any()):
            return
        every = bool(known.all())
        labels, values = (
            seen.labels[known],
            readings.maximum if every else readings.maximum[sent(known.nonzero()[:, 0], self.device)],
        )
        self._widen(labels.unique())
        row = torch.searchsorted(self.labels, labels)
        self.seen += row.bincount(minlength=len(self.labels))
        if self.too_many:
            return
        row = sent(row, self.device)
        numbers, largest = values, values
        if not readings.complete:
            nan = values.isnan()
            _add_rows(self.missing, row, nan.to(torch.int32))
            numbers, largest = values.masked_fill(nan, 0.0), values.masked_fill(nan, -torch.inf)
        _add_rows(self.total, row, numbers.to(self.total.dtype))
        self.maximum.scatter_reduce_(0, row[:, None].expand_as(values), largest, "amax")

    def merge(self, other: Self) -> None:
        """Takes in what another saw of other images."""
        self._widen(other.labels.cpu())
        at = torch.searchsorted(self.labels, other.labels.cpu())
        self.seen = self.seen.index_add(0, at, other.seen.cpu())
        if not self.too_many:  # nor has the other, then
            at = at.to(self.device)
            self.missing[at] += other.missing
            self.total[at] += other.total
            self.maximum[at] = torch.maximum(self.maximum[at], other.maximum)

    def shift(self, images: int) -> None:
        """Labels know no image numbers."""

    def images(self) -> Tensor:
        """None."""
        return torch.empty(0, dtype=torch.int64)

    def state(self) -> dict[str, Tensor]:
        """Its tensors, and its `units` and `most`, `[2]`."""
        return {
            "labels": self.labels, "seen": self.seen, "missing": self.missing, "total": self.total,
            "maximum": self.maximum, "sizes": torch.tensor([self.units, self.most]),
        }  # fmt: skip

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Self:
        """The accumulator whose `state` it was."""
        units, most = state["sizes"].tolist()
        self = cls(units, most, state["total"].device)
        self._set(state["labels"], state["seen"], state["missing"], state["total"], state["maximum"])
        return self

    def _set(self, labels: Tensor, seen: Tensor, missing: Tensor, total: Tensor, maximum: Tensor) -> None:
        self.labels, self.seen = labels, seen
        self.missing, self.total, self.maximum = missing, total, maximum

    def _empty(self, labels: int) -> tuple[Tensor, Tensor, Tensor]:
        shape = labels, self.units if labels * self.units <= self.most else 0
        sums = torch.float32 if self.device.type == "mps" else torch.float64
        return (
            torch.zeros(shape, dtype=torch.int32, device=self.device),
            torch.zeros(shape, dtype=sums, device=self.device),
            torch.full(shape, -torch.inf, device=self.device),
        )

    def _widen(self, labels: Tensor) -> None:
        """Makes room for further `labels`."""
        labels = torch.cat([self.labels, labels]).unique()
        if torch.equal(labels, self.labels):
            return
        missing, total, maximum = self._empty(len(labels))
        at = torch.searchsorted(labels, self.labels)
        seen = torch.zeros(len(labels), dtype=torch.int64).index_add(0, at, self.seen)
        if missing.numel():
            at = sent(at, self.device)
            missing[at], total[at], maximum[at] = self.missing, self.total, self.maximum
        self._set(labels, seen, missing, total, maximum)


def _add_rows(to: Tensor, row: Tensor, values: Tensor) -> None:
    """Adds `values` `[B, U]` to the rows `[B]` of `to`, in the same order every time."""
    if to.device.type == "cpu":
        to.index_add_(0, row, values)
    else:
        to.index_put_((row,), values, accumulate=True)


def means(images: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Mean image activation by label and unit, `[P, U]`; NaN where no image has a number."""
    with np.errstate(invalid="ignore"):
        mean: np.ndarray = total / np.where(images, images, np.nan)
    return mean


def best_labels(mean: np.ndarray) -> np.ndarray:
    """The row of each unit's label with the highest mean, `[U]`, the first of several; -1 where there is none."""
    known = ~np.isnan(mean)
    best = np.where(known, mean, -np.inf).argmax(0) if len(mean) else np.zeros(mean.shape[1], np.int64)
    return np.where(known.any(0), best, -1)


def selectivity(mean: np.ndarray) -> np.ndarray:
    """Class selectivity of each unit, `[U]`: (m - r) / (m + r), 0 for none to 1 for one class alone.

    m is the highest mean of a class and r the mean of all other classes' means (Morcos et al., ICLR 2018). NaN where a
    mean is negative, for which it is not defined, where all are zero, and with fewer than two classes.
    """
    known = ~np.isnan(mean)
    count = known.sum(0)
    values = np.where(known, mean, 0.0)
    most = np.where(known, mean, -np.inf).max(0, initial=-np.inf)
    with np.errstate(invalid="ignore", divide="ignore"):
        rest = (values.sum(0) - most) / (count - 1)
        found: np.ndarray = (most - rest) / (most + rest)
    found[(count < 2) | (values.min(0, initial=0.0) < 0)] = np.nan
    return found
