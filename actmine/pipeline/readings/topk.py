"""Exact top-k of every unit: the k largest image activations with image and position, in a total order.

An entry's value and image are packed into one int64 whose order is the order of exemplars: activation descending,
then image ascending. So no two entries tie, `torch.topk` on any device gives the one right answer, and merging in
any order gives the same entries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self

import torch
from torch import Tensor

from actmine.pipeline.network.devices import runs_triton
from actmine.pipeline.readings.batch_index import BatchIndex
from actmine.pipeline.readings.taps import Readings

EMPTY = torch.iinfo(torch.int64).min
"""The key of no entry; below the key of every float32, -inf included."""
MOST_IMAGES = 1 << 32
_LOW = MOST_IMAGES - 1
_ROWS_TOGETHER = {"cpu": 1 << 13}
_ROWS_ELSEWHERE = 1 << 17
_HELD_BY_KERNEL = 256
"""Entries of a unit up to which one kernel keeps them on a GPU."""


def pack(activation: Tensor, image: Tensor) -> Tensor:
    """Keys, int64, of float32 activations and image numbers (int64, below 2**32); `EMPTY` for NaN.

    The bits of a float32 compare like integers once those of the negatives are flipped.
    """
    bits = (activation + 0.0).contiguous().view(torch.int32)  # + 0.0: -0.0 and 0.0 are the same activation
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    keys = (ordered.to(torch.int64) << 32) | (_LOW - image)
    return keys.masked_fill(activation.isnan(), EMPTY)


def unpack(keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Activations (float32), image numbers (int64) and a mask of the entries that are none."""
    ordered = (keys >> 32).to(torch.int32)
    bits = ordered ^ ((ordered >> 31) & 0x7FFFFFFF)
    return bits.view(torch.float32), _LOW - (keys & _LOW), keys == EMPTY


class TopK:
    """The k largest entries of each of `units` units; image numbers are the caller's.

    Of units in the spans `rectified`, latents that are 0 almost always, zeros are no entries: neither an update nor the
    state takes more than those that fired.
    """

    def __init__(
        self, units: int, k: int, device: torch.device | str = "cpu", rectified: Sequence[tuple[int, int]] = ()
    ) -> None:
        self.k = k
        self._silent: Tensor | None = None
        self._compact = bool(rectified)
        if rectified:
            self._silent = torch.zeros(units, dtype=torch.bool, device=device)
            for start, stop in rectified:
                self._silent[start:stop] = True
        self._keys = torch.full((units, k), EMPTY, dtype=torch.int64, device=device)
        self._positions = torch.zeros((units, k), dtype=torch.int32, device=device)

    def update(self, readings: Readings, index: BatchIndex) -> None:
        """Takes in one batch: `readings` `[B, U]` of the images `seen` `[B]`."""
        maximum, position = readings.maximum, readings.position.to(torch.int32)
        if self._silent is not None:
            maximum = maximum.masked_fill((maximum == 0) & self._silent, torch.nan)
        if runs_triton(maximum.device) and self.k <= _HELD_BY_KERNEL:
            from actmine.pipeline.readings.unit_kernels import keep_best

            keep_best(self._keys, self._positions, maximum, position, index.numbers)
            return
        if self._silent is None or maximum.device.type != "cpu":
            keys = pack(maximum, index.numbers[:, None])
            self._keep_best([self._keys, keys.t()], [self._positions, position.t()])
            return
        fired = (~maximum.isnan()).any(0).nonzero()[:, 0]
        some = TopK(0, self.k)
        some._keys, some._positions = self._keys[fired], self._positions[fired]
        keys = pack(maximum[:, fired], index.numbers[:, None])
        some._keep_best([some._keys, keys.t()], [some._positions, position[:, fired].t()])
        self._keys[fired], self._positions[fired] = some._keys, some._positions

    def merge(self, other: Self) -> None:
        """Takes in what another saw of other images, numbered in the same way."""
        self._keep_best([self._keys, other._keys], [self._positions, other._positions])

    def shift(self, images: int) -> None:
        """Adds `images` to every image number. Raises `OverflowError` past 2**32 images."""
        shifted = torch.empty_like(self._keys)
        for rows in _parts(shifted):
            keys = self._keys[rows]
            occupied = keys != EMPTY
            if bool((((keys & _LOW) < images) & occupied).any()):  # the low half counts down from the largest number
                raise OverflowError(f"more than {MOST_IMAGES:,} images in one dataset")
            shifted[rows] = keys - images * occupied
        self._keys = shifted

    def images(self) -> Tensor:
        """The numbers of all images that are among the k of any unit, int64 `[N]`."""
        _, images, empty = unpack(self._keys)
        return images[~empty]

    def state(self) -> dict[str, Tensor]:
        """Keys `[U, k]` in order, best first, and positions `[U, k]`; where zeros are no entries, those there are.

        Then `rows` `[U]` says how many each unit has, and `k` what there is room for.
        """
        if not self._compact:
            keys, order = self._keys.sort(dim=1, descending=True)
            return {"keys": keys, "positions": self._positions.gather(1, order)}
        parts = []
        for rows in _parts(self._keys):
            keys, order = self._keys[rows].sort(dim=1, descending=True)
            there = keys != EMPTY
            parts.append((keys[there], self._positions[rows].gather(1, order)[there], there.sum(1, dtype=torch.int32)))
        none = (self._keys.new_empty(0), self._positions.new_empty(0), self._positions.new_empty(0))
        joined = dict(zip(("keys", "positions", "rows"), map(torch.cat, zip(none, *parts, strict=True)), strict=True))
        return {**joined, "k": torch.tensor([self.k])}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Self:
        """The accumulator whose `state` it was."""
        if "rows" in state:
            return cls._filled(state)
        self = cls(0, state["keys"].shape[1], state["keys"].device)  # what is there already needs no room
        self._keys, self._positions = state["keys"], state["positions"]
        return self

    @classmethod
    def _filled(cls, state: dict[str, Tensor]) -> Self:
        """That of a state that holds only what entries there are."""
        rows = state["rows"]
        self = cls(len(rows), int(state["k"][0]), rows.device)
        self._compact = True
        there = torch.arange(self.k, device=rows.device) < rows[:, None]
        self._keys[there], self._positions[there] = state["keys"], state["positions"]
        return self

    def _keep_best(self, keys: list[Tensor], positions: list[Tensor]) -> None:
        best, places = torch.empty_like(self._keys), torch.empty_like(self._positions)
        for rows in _parts(best):
            best[rows], kept = torch.cat([part[rows] for part in keys], 1).topk(self.k, dim=1, sorted=False)
            places[rows] = torch.cat([part[rows] for part in positions], 1).gather(1, kept)
        self._keys, self._positions = best, places


def _parts(keys: Tensor) -> Iterator[slice]:
    """Some thousand rows at a time: what is made of them on the way stays in the caches, however many there are."""
    together = _ROWS_TOGETHER.get(keys.device.type, _ROWS_ELSEWHERE)
    return (slice(start, start + together) for start in range(0, len(keys), together))
