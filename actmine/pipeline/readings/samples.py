"""A random sample of the dataset's images with what every unit made of them: where bands of percentiles come from.

The same images for all units: those whose identities, mixed once more, are smallest. So the sample is drawn in the one
pass, no matter in which order or by how many, and any subset of it that activations alone decide is as random.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from actmine.pipeline.readings.batch_index import BatchIndex, mixed
from actmine.pipeline.readings.taps import Readings

IMAGES = 1024
_OF_SAMPLES = 0x5EED  # makes this draw independent of others by the same identities


class Sample:
    """Up to `images` images with the image activations and positions of all `units`, in the order of their draw."""

    BYTES_A_UNIT = 8 * IMAGES  # of a block's state

    def __init__(self, units: int, images: int = IMAGES, device: torch.device | str = "cpu") -> None:
        self.most = images
        self.draws = torch.empty(0, dtype=torch.int64, device=device)
        self.numbers = torch.empty(0, dtype=torch.int64, device=device)
        self.maximum = torch.empty((0, units), device=device)
        self.position = torch.empty((0, units), dtype=torch.int32, device=device)

    def update(self, readings: Readings, index: BatchIndex) -> None:
        """Takes in one batch: `readings` `[B, U]` of the images `seen` `[B]`."""
        draws = mixed(index.identities ^ _OF_SAMPLES)
        self._add(draws, index.numbers, readings.maximum, readings.position.to(torch.int32))

    def merge(self, other: Self) -> None:
        """Takes in what another saw of other images, numbered in the same way."""
        self._add(other.draws, other.numbers, other.maximum, other.position)

    def shift(self, images: int) -> None:
        """Adds `images` to every image number."""
        self.numbers = self.numbers + images

    def images(self) -> Tensor:
        """The numbers of all its images, int64 `[N]`."""
        return self.numbers

    def state(self) -> dict[str, Tensor]:
        """Draws and numbers `[N]`, activations and positions `[N, U]`, and how many images there may be, `[1]`."""
        return {
            "draws": self.draws, "numbers": self.numbers, "maximum": self.maximum, "position": self.position,
            "most": torch.tensor([self.most]),
        }  # fmt: skip

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Self:
        """The accumulator whose `state` it was."""
        self = cls(state["maximum"].shape[1], int(state["most"]))
        self.draws, self.numbers = state["draws"], state["numbers"]
        self.maximum, self.position = state["maximum"], state["position"]
        return self

    def _add(self, draws: Tensor, numbers: Tensor, maximum: Tensor, position: Tensor) -> None:
        all_draws = torch.cat([self.draws, draws])
        kept = all_draws.argsort()[: self.most]
        waits = draws.device.type != "cpu"  # for an answer, longer than copying takes
        if not waits and len(self.draws) == self.most and int(kept.max()) < self.most:
            return  # none of them is drawn: nothing to copy
        self.draws, self.numbers = all_draws[kept], torch.cat([self.numbers, numbers])[kept]
        self.maximum = torch.cat([self.maximum, maximum])[kept]
        self.position = torch.cat([self.position, position])[kept]
