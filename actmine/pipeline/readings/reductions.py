"""What a tap makes of a layer's tensor: maximum and its place, on request minimum, one position, counts of all.

On a GPU one kernel reads a map once for all of it (`tap_operator`); elsewhere each is the fastest that torch has.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from actmine.pipeline.network.layouts import FEATURES, as_map
from actmine.pipeline.readings.buckets import count_positions
from actmine.pipeline.readings.tap_operator import read_once, reads_once
from actmine.pipeline.words import EVERY, SAMPLED


def read_layer(activations: Tensor, layout: str, height: int | None, width: int | None) -> tuple[Tensor, Tensor]:
    """Maximum over positions and its place, of a layer's tensor in its `layout`: two `[B, U]`."""
    if layout == FEATURES:
        return read_features(activations)
    maps = as_map(activations, layout, height, width)
    if not reads_once(maps):
        return read_map(maps)
    maximum, position = read_once(maps)
    return maximum, position


def read_both_ends(
    activations: Tensor, layout: str, height: int | None, width: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `read_layer` returns, then minimum and its place: four `[B, U]`."""
    if layout != FEATURES and reads_once(maps := as_map(activations, layout, height, width)):
        maximum, position, minimum, lowest = read_once(maps, both=True)
        return maximum, position, minimum, lowest
    maximum, position = read_layer(activations, layout, height, width)
    turned, lowest = read_layer(-activations, layout, height, width)
    return maximum, position, -turned, lowest


def read_marked(
    activations: Tensor, marks: Tensor, minima: bool, positions: str, layout: str, height: int | None, width: int | None
) -> tuple[Tensor, ...]:
    """What `read_layer` or `read_both_ends` returns, then `read_drawn` or `read_counts`, which know `marks` `[B]`."""
    if layout != FEATURES and reads_once(maps := as_map(activations, layout, height, width)):
        return tuple(read_once(maps, marks, minima, positions == SAMPLED, positions == EVERY))
    read, beside = read_both_ends if minima else read_layer, read_drawn if positions == SAMPLED else read_counts
    return *read(activations, layout, height, width), beside(activations, marks, layout, height, width)


def read_fired(activations: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """At how many positions units are above zero, int32 `[B, U]`, then what another of these functions returns.

    `rest`: perhaps marks `[B]`, whether they are counted (0 otherwise), the name of that function, and its arguments,
    the last three of them a layer's layout, height and width.
    """
    marks, (counts, name, *arguments) = (rest[:1], rest[1:]) if isinstance(rest[0], Tensor) else ((), rest)
    read = {each.__name__: each for each in (read_layer, read_both_ends, read_marked)}[name](
        activations, *marks, *arguments
    )
    if not counts:
        return torch.zeros_like(read[0], dtype=torch.int32), *read
    layout, height, width = arguments[-3:]
    fires = activations > 0
    maps = fires[:, :, None, None] if layout == FEATURES else as_map(fires, layout, height, width)
    return maps.sum((2, 3), dtype=torch.int32), *read


def read_drawn(activations: Tensor, marks: Tensor, layout: str, height: int | None, width: int | None) -> Tensor:
    """Activations `[B, U]` at one position of each image's map, the same for all units: the mark modulo their number.

    Positions count row by row. Features, which have none, are what they are.
    """
    if layout == FEATURES:
        return activations.float()
    maps = as_map(activations, layout, height, width)
    rows, columns = maps.shape[2:]
    place = marks % (rows * columns)
    images = torch.arange(maps.shape[0], device=maps.device)
    return maps[images, :, place // columns, place % columns].float()


def read_counts(activations: Tensor, marks: Tensor, layout: str, height: int | None, width: int | None) -> Tensor:
    """How many positions of all images fall into each bucket, int32 `[U, BUCKETS]`; without images that are marked."""
    maps = activations[:, :, None, None] if layout == FEATURES else as_map(activations, layout, height, width)
    return count_positions(maps, marks)


def read_map(activations: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum over positions and its place, of a map `[B, C, H, W]`: two `[B, C]`.

    Pooling finds value and place in one sweep, on an eager CPU in channels_last three times faster than `max` over a
    flat view. Compilers cannot fuse it: there, and on GPUs without Triton, rows first.
    """
    if activations.device.type == "cpu" and not torch.compiler.is_compiling():
        maximum, position = functional.adaptive_max_pool2d(activations, 1, return_indices=True)
        return maximum.flatten(1).float(), position.flatten(1)
    return read_rows(activations)


def read_rows(activations: Tensor) -> tuple[Tensor, Tensor]:
    """What `read_map` returns, by the maximum of each row, the first row that has it, and its place in that row.

    One sweep over the map, all else is a row or a column of it. A NaN gives NaN and some place.
    """
    width = activations.shape[3]
    rows = activations.amax(3)
    maximum = rows.amax(2)
    y = _first(rows == maximum[:, :, None])
    row = activations.gather(2, y[:, :, None, None].expand(-1, -1, 1, width))[:, :, 0]
    return maximum.float(), y * width + _first(row == maximum[:, :, None])


def _first(where: Tensor) -> Tensor:
    """The first place in the last dimension that is true, the last one if none is; int64."""
    length = where.shape[-1]
    places = torch.arange(length, dtype=torch.float32, device=where.device)
    return torch.where(where, places, float(length - 1)).amin(-1).to(torch.int64)


def read_features(activations: Tensor) -> tuple[Tensor, Tensor]:
    """The same for features `[B, C]`, which have no positions."""
    return activations.float(), torch.zeros_like(activations, dtype=torch.int32)
