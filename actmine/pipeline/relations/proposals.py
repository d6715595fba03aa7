"""The largest numbers of each row of a matrix that comes in tiles, and where they are."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_GROUP = 16  # columns of a tile of which at first only the largest counts
_FEW = 4


class Proposals:
    """The `count` largest of each of so many rows; which of equal ones is not said."""

    def __init__(self, rows: int, count: int, device: torch.device | str = "cpu") -> None:
        self._values = torch.full((rows, count), -torch.inf, device=device)
        self._places = torch.zeros((rows, count), dtype=torch.int64, device=device)

    def take(self, tile: Tensor, begin: int) -> None:
        """Takes in the columns of all rows from `begin` on: `tile` `[R, C]`, of whatever strides.

        The largest of a row are in those groups of columns whose own largest are the largest, and of these only groups
        count that surpass what is there already: a tile is read once and sorted in small part.
        """
        rows, columns = tile.shape
        if columns % _GROUP or columns // _GROUP <= self._values.shape[1]:
            self._merge(slice(None), tile, torch.arange(begin, begin + columns, device=tile.device).expand(rows, -1))
            return
        apart = columns // _GROUP  # a group has every so manieth column: neighbours in memory are compared at once
        groups = _maxima(tile)
        least = self._values.amin(1)
        better = (groups > least[:, None]).sum(1)
        offsets = torch.arange(_GROUP, device=tile.device) * apart
        for fewest, most in ((1, _FEW), (_FEW + 1, apart)):
            some = ((better >= fewest) & (better <= most)).nonzero()[:, 0]
            if not len(some):
                continue
            width = min(most, self._values.shape[1])
            chosen = groups[some].topk(width, dim=1).indices
            places = (chosen[:, :, None] + offsets).flatten(1)
            self._merge(some, tile[some[:, None], places], places + begin)

    def _merge(self, rows: Tensor | slice, values: Tensor, places: Tensor) -> None:
        count = self._values.shape[1]
        every = torch.cat([self._values[rows], values], dim=1)
        where = torch.cat([self._places[rows], places], dim=1)
        self._values[rows], kept = every.topk(count, dim=1)
        self._places[rows] = where.gather(1, kept)

    def found(self) -> tuple[np.ndarray, np.ndarray]:
        """Places (int64) and values `[R, count]`, largest first."""
        return self._places.cpu().numpy(), self._values.cpu().numpy()


def _maxima(tile: Tensor) -> Tensor:
    """Of each row the largest of each group; the same of a transposed tile, whose rows lie apart in memory."""
    if tile.stride(0) == 1:
        return tile.t().unflatten(0, (_GROUP, -1)).amax(0).t()
    return tile.unflatten(1, (_GROUP, -1)).amax(1)
