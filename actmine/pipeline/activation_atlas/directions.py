"""What cells are by their vectors: means, whitened directions, units that stand out, images that are most typical."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from actmine.pipeline.activation_atlas.grid import Cell
from actmine.pipeline.activation_atlas.whitening import second_moment, whitened

SHOWN = 8
"""Images that a cell shows, and units that it names."""
_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Standing:
    """How all drawn positions project on the whitened direction of each cell: `[C]` each."""

    mean: np.ndarray
    deviation: np.ndarray
    largest: np.ndarray


class Directions:
    """The directions of `cells`, in their order, of vectors `[N, U]` none of which is zero."""

    def __init__(self, cells: Sequence[Cell], vectors: np.ndarray) -> None:
        self.cells, self.vectors = list(cells), vectors
        self._length = np.linalg.norm(vectors.astype(np.float64), axis=1)
        self.moment, self.shrinkage = second_moment(vectors)

    @cached_property
    def means(self) -> np.ndarray:
        """The mean vector of each cell, float32 `[C, U]`."""
        means = [self.vectors[cell.members].mean(0, dtype=np.float64) for cell in self.cells]
        found: np.ndarray = np.array(means, np.float32).reshape(-1, self.vectors.shape[1])
        return found

    @cached_property
    def whitened(self) -> np.ndarray:
        """What is climbed for each cell, its mean times the inverse second moment: of length 1, float32 `[C, U]`."""
        return whitened(self.means, self.moment)

    @cached_property
    def standing(self) -> Standing:
        """What the dataset's own positions reach in each whitened direction."""
        parts = []
        for at in range(0, len(self.cells), _AT_ONCE):
            along = self.vectors @ self.whitened[at : at + _AT_ONCE].T
            parts.append((along.mean(0, dtype=np.float64), along.std(0, dtype=np.float64), along.max(0)))
        mean, deviation, largest = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Standing(mean, deviation, largest)

    def rank(self, cell: int, projections: np.ndarray) -> int | None:
        """How many cells of its level a picture with such `projections` `[C]` suits better than `cell`.

        Each is standardized over the dataset; None where that cannot be done.
        """
        its = self.standing
        if not its.deviation[cell] > 0 or not np.isfinite(projections[cell]):
            return None
        known = its.deviation > 0
        heights = np.full(len(known), -np.inf)
        heights[known] = (projections[known].astype(np.float64) - its.mean[known]) / its.deviation[known]
        return int((self._level == self._level[cell])[heights > heights[cell]].sum())

    @cached_property
    def _level(self) -> np.ndarray:
        return np.array([cell.level for cell in self.cells])

    def cosines(self, cell: int) -> np.ndarray:
        """The cosine of each vector of a cell with their mean, in the order of its members."""
        mean, members = self.means[cell].astype(np.float64), self.cells[cell].members
        length = np.linalg.norm(mean)
        found: np.ndarray = self.vectors[members] @ mean / (self._length[members] * (length if length else 1.0))
        return found

    @cached_property
    def of_all(self) -> np.ndarray:
        """The mean cosine of all vectors with the mean of each cell, `[C]`."""
        mean_direction = (self.vectors / self._length[:, None]).mean(0)
        length = np.linalg.norm(self.means.astype(np.float64), axis=1)
        found: np.ndarray = self.means @ mean_direction / np.where(length > 0, length, 1.0)
        return found

    def typical(self, cell: int) -> np.ndarray:
        """The members of a cell whose vectors have the largest cosine with their mean, best first, at most `SHOWN`."""
        order = np.argsort(-self.cosines(cell), kind="stable")[:SHOWN]
        found: np.ndarray = self.cells[cell].members[order]
        return found

    def units(self, cell: int) -> tuple[np.ndarray, np.ndarray]:
        """The units whose mean in a cell is furthest above that of all images, and how far, in deviations over all."""
        mean, deviation = self._spread
        varies = deviation > 0
        above = np.where(varies, (self.means[cell] - mean) / np.where(varies, deviation, 1.0), -np.inf)
        order = np.argsort(-above, kind="stable")[:SHOWN]
        order = order[above[order] > 0]
        return order, above[order]

    @cached_property
    def _spread(self) -> tuple[np.ndarray, np.ndarray]:
        return self.vectors.mean(0, dtype=np.float64), self.vectors.std(0, dtype=np.float64)
