"""Where positions of a layer lie in the image: rows and columns of a map, or of the patches that tokens stand for.

Tokens come in a row; which of them stands for which patch is seen by changing single patches of an image, at the first
tensor that has so many tokens. What else is in that row are class and register tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.layouts import MAPS, MAPS_LAST, SEQUENCE, TOKEN_LAYOUTS
from actmine.pipeline.network.shapes import noise

PATCH, CLASS, REGISTER = "patch", "class", "register"
_MOST_OTHERS = 64  # class and register tokens that a network may have
_FIRST = 4  # tensors of so many tokens that are looked at: the very first may not depend on the image yet


@dataclass(frozen=True, slots=True)
class Grid:
    """Positions of a layer as `height` rows and `width` columns over the image.

    Of `tokens` the grid begins with number `first`; those outside it belong to no place.
    """

    height: int
    width: int
    first: int = 0
    tokens: bool = False

    def token(self, number: int) -> str | None:
        """What a token is: a patch, or of those of no place the class token, which comes first, or a register."""
        if not self.tokens:
            return None
        if self.first <= number < self.first + self.height * self.width:
            return PATCH
        return CLASS if number == 0 else REGISTER

    def laid_out(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Of maps `[n, H, W]` of a layer those on the grid `[n, height, width]`, and all other tokens `[n, T]`."""
        row, end = maps.flatten(1), self.first + self.height * self.width
        others = torch.cat([row[:, : self.first], row[:, end:]], 1)
        return row[:, self.first : end].unflatten(1, (self.height, self.width)), others


def grids(traced: Traced, layers: Sequence[Layer]) -> dict[str, Grid]:
    """The grid of each layer by name; those without positions, or whose positions have no known place, have none."""
    found = _of_tensors(traced, [layer.own for layer in layers])
    mine = {layer.name: _of_latents(layer, found[layer.own.name]) for layer in layers if layer.own.name in found}
    return {name: grid for name, grid in mine.items() if grid is not None}


def _of_latents(layer: Layer, grid: Grid) -> Grid | None:
    """The grid of a layer of latents, of that of the layer which they are made of; None where they have no places."""
    its = layer.latents
    if its is None or its.count is None:
        return grid if its is None or its.pool == "max" else None
    inside = its.first <= grid.first and its.first + its.count >= grid.first + grid.height * grid.width
    return replace(grid, first=grid.first - its.first) if inside and its.pool == "max" else None


def _of_tensors(traced: Traced, layers: Sequence[Layer]) -> dict[str, Grid]:
    found = {
        layer.name: Grid(layer.height, layer.width)
        for layer in layers
        if layer.layout in (MAPS, MAPS_LAST) and layer.height is not None and layer.width is not None
    }
    rows = {*TOKEN_LAYOUTS, SEQUENCE}
    tokens = {layer.name: layer.height for layer in layers if layer.layout in rows and layer.height}
    if tokens:
        of_length = _of_tokens(traced, set(tokens.values()))
        found |= {name: of_length[length] for name, length in tokens.items() if length in of_length}
    return found


def _of_tokens(traced: Traced, lengths: Iterable[int]) -> dict[int, Grid]:
    """The grid of rows of so many tokens, where one is found."""
    images = noise(traced.module, traced.input_shape)
    seen = _Seen(traced, images, set(lengths))
    found = {}
    for length in lengths:
        sizes = {(h, w) for h, w in seen.maps if h * w <= length <= h * w + _MOST_OTHERS and (h, w) != (1, 1)}
        for rows, columns in sorted(sizes, key=lambda size: -size[0] * size[1]):
            grid = _probed(traced, seen, images, length, rows, columns)
            if grid is not None:
                found[length] = grid
                break
    return found


class _Seen:
    """What an image makes of a network: sizes of its maps, and the first tensor with each number of tokens."""

    def __init__(self, traced: Traced, images: Tensor, lengths: set[int]) -> None:
        self.maps: list[tuple[int, int]] = []
        self.tokens: dict[int, list[Tensor]] = {length: [] for length in lengths}
        with torch.inference_mode(), suppress(_Enough):
            traced.run(images, self._see)

    def _see(self, node: str, tensor: Tensor) -> None:
        if tensor.dim() == 4 and len(tensor) == 1:
            self.maps += [(tensor.shape[2], tensor.shape[3]), (tensor.shape[1], tensor.shape[2])]
        if tensor.dim() == 3 and 1 in tensor.shape[:2] and tensor.is_floating_point():
            tokens = tensor.squeeze(tensor.shape.index(1))
            for length, kept in self.tokens.items():
                dims = [dim for dim in (0, 1) if tokens.shape[dim] == length]
                if dims and len(kept) < _FIRST:
                    kept.append(tokens.movedim(dims[0], 0).float().clone())
            if all(len(kept) == _FIRST for kept in self.tokens.values()):
                raise _Enough


class _Enough(Exception):
    """What follows need not run."""


def _probed(traced: Traced, before: _Seen, images: Tensor, length: int, rows: int, columns: int) -> Grid | None:
    """The grid of a row of tokens, if changing patches one by one shows that it has one, row by row."""
    height, width = images.shape[2] // rows, images.shape[3] // columns
    if not height or not width:
        return None
    places = []
    for row, column in ((0, 0), (0, columns - 1), (rows - 1, 0), (rows - 1, columns - 1)):
        changed = images.clone()
        top, left = row * images.shape[2] // rows, column * images.shape[3] // columns
        changed[:, :, top : top + height, left : left + width] *= -1
        after = _Seen(traced, changed, {length})
        moved = [
            (one - other).abs().amax(1) for one, other in zip(before.tokens[length], after.tokens[length], strict=True)
        ]
        first = next((each for each in moved if each.max() > 0), None)
        if first is None:
            return None
        places.append(int(first.argmax()))
    begin = places[0]
    wanted = [begin, begin + columns - 1, begin + (rows - 1) * columns, begin + rows * columns - 1]
    if places != wanted or wanted[-1] >= length:
        return None
    return Grid(rows, columns, begin, True)
