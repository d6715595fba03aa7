"""Histograms of what every unit does at positions: at one of each map, drawn at random, or at all of them.

The maximum of a map says how hard a unit is driven by an image; most of what a unit does is elsewhere in the map.
"""

from __future__ import annotations

import torch
from torch import Tensor

from actmine.pipeline.readings.batch_index import BatchIndex, mixed
from actmine.pipeline.readings.histograms import Histograms
from actmine.pipeline.readings.taps import Readings
from actmine.pipeline.words import EVERY, SAMPLED

_OF_POSITIONS = 0x905171045  # makes these draws independent of others by the same identities


def draws(identities: Tensor) -> Tensor:
    """What each image's position is drawn by, from its identity (`readings.batch_index`): 63 random bits, int64 `[B]`.

    In a map of H x W positions it is that of this number modulo H W, counted row by row. So layers with maps of one
    size are read at the same place, and an image is read at the same places in every run over its dataset.
    """
    return mixed(identities ^ _OF_POSITIONS) & ((1 << 63) - 1)


class Positions(Histograms):
    """How many positions fell into each of the `BUCKETS` of each of `units` units, int64; NaN ones into none."""

    BYTES_A_UNIT = 4096
    MOST_UNITS = 1 << 17  # 3.6 GB
    MOST_UNITS_WHOLE = 1 << 15  # every batch at work has counts of its own, 0.45 GB
    KIND = torch.int64

    @classmethod
    def most_units(cls, positions: str) -> int:
        """Of how many units they are kept at most; `positions` is one of `keep.POSITIONS`."""
        return {SAMPLED: cls.MOST_UNITS, EVERY: cls.MOST_UNITS_WHOLE}[positions]

    def update(self, readings: Readings, index: BatchIndex) -> None:
        """Takes in what was read at one position of each map; where all are counted, `add` takes that in."""
        if readings.sampled is not None:
            self._count(readings.sampled, readings.complete)

    def add(self, counted: Tensor) -> None:
        """Takes in the positions of a batch, integers `[U, BUCKETS]`."""
        self.counts.add_(counted)
        self._state = None
