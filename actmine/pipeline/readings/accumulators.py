"""What is kept of all readings: the kinds of accumulators, what each of them can do, and how they are fed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

import torch
from torch import Tensor

from actmine.pipeline.readings.batch_index import BatchIndex, together
from actmine.pipeline.readings.density import Density
from actmine.pipeline.readings.histograms import Histograms
from actmine.pipeline.readings.labels import Labels
from actmine.pipeline.readings.lowest import Lowest
from actmine.pipeline.readings.positions import Positions
from actmine.pipeline.readings.samples import Sample
from actmine.pipeline.readings.sketches import Sketches
from actmine.pipeline.readings.statistics import Statistics
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.readings.taps import Readings
from actmine.pipeline.readings.topk import TopK
from actmine.pipeline.words import NO_POSITIONS

_TOGETHER = 256  # images fed at once: what one feeding costs apart from them is shared by many
_NUMBERS_TOGETHER = 1 << 24  # fewer images where there are very many units


class Accumulator(Protocol):
    """What is kept of all readings: fed batch by batch, merged block by block, saved and restored."""

    def update(self, readings: Readings, index: BatchIndex) -> None:
        """Takes in one batch, `readings` `[B, U]` of the images `seen` `[B]`."""

    def merge(self, other: Self) -> None:
        """Takes in what another saw of other images."""

    def shift(self, images: int) -> None:
        """Adds `images` to every image number it holds."""

    def images(self) -> Tensor:
        """The numbers of the images it holds, int64 `[N]` in any order, each perhaps several times."""

    def state(self) -> dict[str, Tensor]:
        """Its tensors by name."""

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Self:
        """The accumulator whose `state` it was."""


ACCUMULATORS: dict[str, type[Accumulator]] = {
    "statistics": Statistics,
    "histograms": Histograms,
    "labels": Labels,
    "topk": TopK,
    "lowest": Lowest,
    "sample": Sample,
    "sketches": Sketches,
    "positions": Positions,
    "density": Density,
}


def new_accumulators(units: int, keep: StatisticsOptions, device: torch.device) -> dict[str, Accumulator]:
    """Those of `ACCUMULATORS` that it takes to `keep` what is asked for, empty."""
    made: dict[str, Accumulator] = {"statistics": Statistics(units, device)}
    if Histograms.fit(units):
        made["histograms"] = Histograms(units, device)
    if keep.labels:
        made["labels"] = Labels(units, device=device)
    if keep.direction != "min":
        made["topk"] = TopK(units, keep.depth, device, keep.rectified)
    if keep.direction != "max":
        made["lowest"] = Lowest(units, keep.depth, device, keep.rectified)
    if keep.samples:
        made["sample"] = Sample(units, device=device)
    if keep.sketch and Sketches.fit(units):
        made["sketches"] = Sketches(units, keep.sketch, device)
    if keep.positions != NO_POSITIONS:
        made["positions"] = Positions(units, device)
    if keep.density:
        made["density"] = Density(units, device)
    return made


def state_bytes(units: int, keep: StatisticsOptions) -> int:
    """About how many bytes the state of one block of some thousand images takes."""
    parts = [12 * keep.depth * (2 if keep.direction == "both" else 1), Histograms.BYTES_A_UNIT]
    parts += [Labels.BYTES_A_UNIT] if keep.labels else []
    parts += [4 * keep.sketch] if Sketches.fit(units) else []
    parts += [Sample.BYTES_A_UNIT] if keep.samples else []
    parts += [Positions.BYTES_A_UNIT] if keep.positions != NO_POSITIONS else []
    parts += [Density.BYTES_A_UNIT] if keep.density else []
    return units * sum(parts)


def held_images(accumulators: dict[str, Accumulator]) -> Tensor:
    """The numbers of all images that any of them holds, int64 on the CPU, ascending, each once."""
    return torch.cat([accumulator.images().cpu().flatten() for accumulator in accumulators.values()]).unique()


class Sink(Protocol):
    """Whatever takes in readings."""

    def update(self, readings: Readings, index: BatchIndex) -> None:
        """Takes in one batch."""


class Feed:
    """Hands readings on to accumulators, and `also` to others, a few hundred images at a time, in their order."""

    def __init__(self, accumulators: dict[str, Accumulator], also: Sequence[Sink] = ()) -> None:
        self.accumulators, self.also = accumulators, also
        self._waiting: list[tuple[Readings, BatchIndex]] = []
        self._images = 0

    def __call__(self, readings: Readings, index: BatchIndex) -> None:
        """Takes in one batch; counts of all positions at once, which are as large for one image as for many."""
        positions = self.accumulators.get("positions")
        if readings.counted is not None and isinstance(positions, Positions):
            positions.add(readings.counted)
        self._waiting.append((readings.compact(), index))
        self._images += len(readings.maximum)
        if self._images >= _TOGETHER or self._images * readings.maximum.shape[1] >= _NUMBERS_TOGETHER:
            self.settle()

    def settle(self) -> dict[str, Accumulator]:
        """The accumulators, with everything fed so far in them."""
        if self._waiting:
            readings = Readings.together([batch for batch, _ in self._waiting])
            seen = together([batch for _, batch in self._waiting])
            self._waiting, self._images = [], 0
            for sink in (*self.accumulators.values(), *self.also):
                sink.update(readings, seen)
        return self.accumulators
