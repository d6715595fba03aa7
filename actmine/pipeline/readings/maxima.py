"""The matrix of all image activations, image by unit: one file per block, kept on request or for a while.

Where a run is small enough, or asked to keep it, any later question (the top-k within a class, an exact correlation, an
area under a curve) needs no second pass.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from actmine.pipeline.readings.batch_index import BatchIndex
from actmine.pipeline.readings.taps import Readings
from actmine.pipeline.storage.files import local_copy, written_aside

_MOST_HALF = 65_504
_MOST_HELD = 256 << 20  # bytes on a GPU: fetching them waits until all that was begun is computed
SMALL_BYTES = 1 << 30
"""Up to this size the matrix is made for the run's own tables where nobody asked for it, and removed behind them."""


@dataclass(frozen=True, slots=True)
class Maxima:
    """A block's part of the matrix: `values` `[N, U]` of the images `numbers` `[N]` with their `labels` `[N]`."""

    numbers: np.ndarray
    labels: np.ndarray
    values: np.ndarray


class Collected:
    """The readings of a block as rows of the matrix, in `kind` (float16 or float32), on the CPU in the end.

    A block with an activation that float16 cannot hold is kept in float32. A GPU holds some hundred megabytes before
    they are fetched.
    """

    def __init__(self, kind: torch.dtype) -> None:
        self.kind = kind
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []
        self._held: list[tuple[Tensor, Tensor, Tensor]] = []
        self._bytes = 0

    def update(self, readings: Readings, index: BatchIndex) -> None:
        """Takes in one batch: `readings` `[B, U]` of the images `seen` `[B]`."""
        values = readings.maximum
        self._held.append((index.numbers, index.labels, values))
        self._bytes += values.numel() * values.element_size()
        if values.device.type == "cpu" or self._bytes > _MOST_HELD:
            self._fetch()

    def _fetch(self) -> None:
        for numbers, labels, values in self._held:
            if self.kind == torch.float16 and bool((values.isfinite() & (values.abs() > _MOST_HALF)).any()):
                self.kind = torch.float32
            self._parts.append((numbers.cpu(), labels, values.to(self.kind).cpu()))
        self._held, self._bytes = [], 0

    def finish(self, units: int) -> Maxima:
        """All of them."""
        self._fetch()
        none = torch.empty(0, dtype=torch.int64)
        parts = [(none, none, torch.empty((0, units), dtype=self.kind)), *self._parts]
        numbers, labels, values = zip(*parts, strict=True)
        together = torch.cat([part.to(self.kind) for part in values])
        return Maxima(torch.cat(numbers).numpy(), torch.cat(labels).numpy(), together.numpy())


@dataclass(frozen=True, slots=True)
class Stored:
    """A block's part on disk: the file of its values and its sum, `numbers` and `labels` `[N]` of its images."""

    path: Path
    numbers: np.ndarray
    labels: np.ndarray
    crc32: str = ""


def store(path: Path, values: np.ndarray) -> str:
    """Writes values `[N, U]` as a `.npy` file, whole or not at all, and gives its sum.

    Raises `UserError` where it cannot be written.
    """
    with written_aside(path) as aside:
        with aside.open("wb") as file:
            np.lib.format.write_array(file, np.ascontiguousarray(values), allow_pickle=False)
        return sum_of(aside)


def sum_of(path: Path) -> str:
    """The CRC-32 of a file. Raises `OSError` where it cannot be read."""
    total = 0
    with local_copy(path) as copy, copy.open("rb") as file:
        while some := file.read(1 << 22):
            total = zlib.crc32(some, total)
    return f"{total:08x}"


class Matrix:
    """The whole matrix, mapped into memory: `images` `[N]` are image_ids, `labels` `[N]` -1 where there is none."""

    def __init__(self, parts: Sequence[Stored], values: Sequence[np.ndarray]) -> None:
        self.images = np.concatenate([part.numbers for part in parts])
        self.labels = np.concatenate([part.labels for part in parts])
        self._values = values

    def units(self, begin: int, end: int) -> np.ndarray:
        """The columns of the units `begin:end`, counted over all layers, float32 `[N, end - begin]`."""
        return np.concatenate([np.asarray(part[:, begin:end], np.float32) for part in self._values])


@contextmanager
def opened(parts: Sequence[Stored]) -> Iterator[Matrix | None]:
    """The matrix while inside, None where there are no parts. Raises `FileNotFoundError` where a file has gone."""
    if not parts:
        yield None
        return
    with ExitStack() as stack:
        files = [stack.enter_context(local_copy(part.path)) for part in parts]
        yield Matrix(parts, [np.load(file, mmap_mode="r") for file in files])


def area_under_curve(values: np.ndarray, places: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """How well each unit tells images at places `begin:end` (`[U]` each) from all others: area under the ROC curve.

    The share of pairs of an image from there and another in which the first drives the unit harder, ties counting half
    (Mann and Whitney's U). `values` `[N, U]`, `places` `[N]`; images with a NaN are left out. `[U]`, NaN where one side
    is empty.
    """
    found = np.full(values.shape[1], np.nan)
    for unit in np.flatnonzero(end > begin):
        there = ~np.isnan(values[:, unit])
        column, own = values[there, unit], (begin[unit] <= places[there]) & (places[there] < end[unit])
        others = np.sort(column[~own])
        if len(others) and own.any():
            below = np.searchsorted(others, column[own], "left") + np.searchsorted(others, column[own], "right")
            found[unit] = below.sum() / (2 * len(others) * own.sum())
    return found
