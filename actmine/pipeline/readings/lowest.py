"""The k most negative activations of every unit, in a total order: lowest first, then the earlier image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from actmine.pipeline.readings.batch_index import BatchIndex
from actmine.pipeline.readings.taps import Readings
from actmine.pipeline.readings.topk import TopK


class Lowest:
    """The k entries of each of `units` units with the smallest minimum: a `TopK` of the activations turned over.

    Its state is that of the `TopK`, activations negated.
    """

    def __init__(
        self, units: int, k: int, device: torch.device | str = "cpu", rectified: Sequence[tuple[int, int]] = ()
    ) -> None:
        self._turned = TopK(units, k, device, rectified)

    def update(self, readings: Readings, index: BatchIndex) -> None:
        """Takes in one batch. Raises `ValueError` for readings without minima."""
        if readings.minimum is None or readings.lowest is None:
            raise ValueError("readings hold no minima: tap the network with minima=True")
        self._turned.update(Readings(-readings.minimum, readings.lowest), index)

    def merge(self, other: Self) -> None:
        """Takes in what another saw of other images, numbered in the same way."""
        self._turned.merge(other._turned)

    def shift(self, images: int) -> None:
        """Adds `images` to every image number."""
        self._turned.shift(images)

    def images(self) -> Tensor:
        """The numbers of all images that are among the k of any unit, int64 `[N]`."""
        return self._turned.images()

    def state(self) -> dict[str, Tensor]:
        """Keys `[U, k]` of negated activations, lowest activation first, and positions `[U, k]`."""
        return self._turned.state()

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Self:
        """The accumulator whose `state` it was."""
        self = cls(0, 0)
        self._turned = TopK.from_state(state)
        return self
