"""The grids of an activation atlas: which cell of each level a position falls into, and how fine grids may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actmine.pipeline.errors import UserError

MOST = 200
"""Cells along the side of a grid, at most."""
FINEST, COARSEST = 40, 4
"""The finest and the coarsest side of grids that are fitted to the number of images."""
_OUTLIERS, _MARGIN = 1.0, 0.1  # percent at each end; of the rest's width


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a level: its row and column, and the rows of the positions that fall into it."""

    level: int
    side: int
    row: int
    column: int
    members: np.ndarray


def fitted_sides(images: int, least: int) -> tuple[int, ...]:
    """Grids from coarse to fine, each of twice as many cells a side, of which the finest holds about `2 * least` images
    a cell if all cells hold as many. Raises `UserError` for too few images."""
    finest = min(int((images / (2 * least)) ** 0.5), FINEST)
    if finest < 2:
        raise UserError(
            f"{images:,} images are too few for an atlas of cells of at least {least}: lower --least, or mine more."
        )
    return tuple(sorted({side for side in (finest // 4, finest // 2, finest) if side >= COARSEST} or {finest}))


def parse_grids(words: str) -> tuple[int, ...]:
    """Sides from words such as `10,20,40`, ascending; none from an empty one. Raises `UserError` for anything else."""
    try:
        sides = tuple(sorted({int(word) for word in words.split(",") if word.strip()}))
    except ValueError as error:
        raise UserError(f"GRIDS={words!r} is not a list of cells a side such as 10,20,40.") from error
    if sides and not 2 <= sides[0] <= sides[-1] <= MOST:
        raise UserError(f"GRIDS={words!r}: a grid has 2 to {MOST} cells a side.")
    return sides


def on_map(layout: np.ndarray) -> np.ndarray:
    """Places `[N, 2]` of a layout on the map, 0 to 1 on either axis, float32.

    The outermost percent at each end is drawn in to a tenth of the others' width beyond them, as in the notebook of
    Carter et al. (Distill 2019), so that single outliers do not leave the map empty.
    """
    low, high = np.percentile(layout, [_OUTLIERS, 100 - _OUTLIERS], axis=0)
    margin = _MARGIN * (high - low)
    clipped = np.clip(layout, low - margin, high + margin)
    clipped = clipped - clipped.min(0)
    width = clipped.max(0)
    found: np.ndarray = (clipped / np.where(width > 0, width, 1)).astype(np.float32)
    return found


def cells_at(places: np.ndarray, side: int) -> np.ndarray:
    """The cell of each place `[N, 2]` (x, y; 0 to 1) in a grid: row * side + column, int64 `[N]`."""
    at = np.minimum((places.astype(np.float64) * side).astype(np.int64), side - 1)
    found: np.ndarray = at[:, 1] * side + at[:, 0]
    return found


def cells_of(places: np.ndarray, sides: Sequence[int], least: int) -> list[Cell]:
    """The cells of all levels that hold at least `least` places, by level, row and column."""
    found = []
    for level, side in enumerate(sides):
        number = cells_at(places, side)
        order = np.argsort(number, kind="stable")
        its, first = np.unique(number[order], return_index=True)
        for cell, members in zip(its.tolist(), np.split(order, first[1:]), strict=True):
            if len(members) >= least:
                found.append(Cell(level, side, cell // side, cell % side, members))
    return found
