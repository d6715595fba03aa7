"""The smallest box that holds most of a map's energy: exact, by branch and bound over bands of rows.

Within a band of rows, the narrowest stretch of columns that holds enough is found by a binary search for every left
edge. A wider band never needs a wider stretch, so one search bounds the area of all bands inside it from below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from actmine.pipeline.preprocessing.geometry import Box

PERCENT = 95
"""How much of the energy the focus of a unit holds."""
_STEPS = (16, 4, 1)
_BITS = 62
_NONE = np.int64(1) << 40  # wider than any map


def smallest_box(energy: np.ndarray, percent: int = PERCENT) -> Box | None:
    """The box of least area that holds at least `percent` of `energy`, `[H, W]`, none of it negative.

    Among equal areas the one with the smaller top, then left, then bottom. None where there is no energy, or where
    some of it is no finite number. Sums are those of whole numbers, to a 2**-40 of the largest energy or finer for any
    map below 4 million pixels: they are the same in whatever order.
    """
    most = float(energy.max(initial=0.0))
    if not (most > 0 and math.isfinite(most) and not np.isnan(energy).any()):
        return None
    bits = _BITS - math.ceil(math.log2(energy.size + 1)) - math.frexp(most)[1]
    whole = np.rint(np.ldexp(energy.astype(np.float64), bits)).astype(np.int64)
    rows, columns = np.flatnonzero(whole.any(1)), np.flatnonzero(whole.any(0))
    found = _Search(whole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], percent).box()
    down, right = int(rows[0]), int(columns[0])
    return Box(found.left + right, found.top + down, found.right + right, found.bottom + down)


@dataclass(frozen=True, slots=True)
class _Bands:
    """Bands of rows `top[i]:bottom[i]` with the narrowest stretch of each: `width` columns from `left`."""

    top: np.ndarray
    bottom: np.ndarray
    left: np.ndarray
    width: np.ndarray

    @property
    def area(self) -> np.ndarray:
        """Of each stretch (pixels)."""
        return self.width * (self.bottom - self.top)


class _Search:
    """One map of whole numbers `[H, W]` whose outer rows and columns are not empty."""

    def __init__(self, energy: np.ndarray, percent: int) -> None:
        height, width = energy.shape
        self.sums = np.zeros((height + 1, width + 1), np.int64)
        np.cumsum(energy, axis=0, out=self.sums[1:, 1:])
        np.cumsum(self.sums[1:, 1:], axis=1, out=self.sums[1:, 1:])
        total = int(self.sums[-1, -1])
        self.need = -(-total * percent // 100)
        self.lefts = int((total - self.sums[-1, :-1] >= self.need).sum())
        filled = energy.any(1)
        down, up = self.sums[:-1, -1], self.sums[1:, -1]  # rows above a top, rows above a bottom
        self.tops = np.flatnonzero(filled & (total - down >= self.need))
        self.bottoms = np.flatnonzero(filled & (up >= self.need)) + 1

    def box(self) -> Box:
        """The smallest box, among blocks of ever fewer tops and bottoms; `first` and `then` number a block's first."""
        first, then = np.zeros(1, np.int64), np.zeros(1, np.int64)
        before, best = max(len(self.tops), len(self.bottoms)), int(_NONE)
        for step in _STEPS:
            first, then = self._parts(first, then, before, step)
            last_top = self.tops[np.minimum(first + step, len(self.tops)) - 1]
            last_bottom = self.bottoms[np.minimum(then + step, len(self.bottoms)) - 1]
            bands = self._narrowest(self.tops[first], last_bottom)
            best = min(best, int(bands.area.min()))
            kept = np.maximum(self.bottoms[then] - last_top, 1) * bands.width <= best
            first, then, before = first[kept], then[kept], step
        order = np.lexsort((bands.bottom, bands.left, bands.top, bands.area))
        top, bottom, left, width = (int(of[order[0]]) for of in (bands.top, bands.bottom, bands.left, bands.width))
        return Box(left, top, left + width, bottom)

    def _parts(self, first: np.ndarray, then: np.ndarray, before: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Blocks of `before` tops and bottoms cut into blocks of `step`; those without a band that holds enough go."""
        offsets = np.arange(0, before, step)
        first = (first[:, None, None] + offsets[:, None] + 0 * offsets).ravel()
        then = (then[:, None, None] + offsets + 0 * offsets[:, None]).ravel()
        there = (first < len(self.tops)) & (then < len(self.bottoms))
        first, then = first[there], then[there]
        last = self.bottoms[np.minimum(then + step, len(self.bottoms)) - 1]
        enough = self.sums[last, -1] - self.sums[self.tops[first], -1] >= self.need
        return first[enough], then[enough]

    def _narrowest(self, top: np.ndarray, bottom: np.ndarray) -> _Bands:
        """The narrowest stretch of each band; one that holds too little is wider than any map."""
        sums = torch.from_numpy(self.sums[bottom] - self.sums[top])
        ends = torch.searchsorted(sums, sums[:, : self.lefts] + self.need).numpy()
        widths = np.where(ends < sums.shape[1], ends - np.arange(self.lefts), _NONE)
        left = widths.argmin(1)
        return _Bands(top, bottom, left, widths[np.arange(len(left)), left])
