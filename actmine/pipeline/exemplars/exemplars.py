"""The winners of every unit as rows: which image, where in the map, and the box in original pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from actmine.pipeline.exemplars.winners import Winners
from actmine.pipeline.network.grids import CLASS, REGISTER, Grid
from actmine.pipeline.network.layers import Layer
from actmine.pipeline.preprocessing.geometry import Box, WayBack
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.readings.statistics_options import TOP
from actmine.pipeline.readings.taps import unit_offsets
from actmine.pipeline.receptive_fields.receptive_field import Field
from actmine.pipeline.scanning.merge import Merged


@dataclass(frozen=True, slots=True)
class Rows:
    """Exemplars of all layers, ordered by (layer, unit, rank); every array has one entry a row.

    `unit` counts all units of all layers from 0; `band` is a place in `bands`, see `winners`; `image` is a row of
    `Merged.images`; `box` is `[rows, 4]`: left, top, right, bottom in pixels of the original image, or of the network's
    input where the preprocessing is not `followed`. `token` is what stands there of a row of tokens, see `Grid.token`.
    """

    bands: tuple[str, ...]
    unit: np.ndarray
    band: np.ndarray
    rank: np.ndarray
    activation: np.ndarray
    image: np.ndarray
    y: np.ndarray
    x: np.ndarray
    box: np.ndarray
    clipped: np.ndarray
    token: np.ndarray

    @property
    def top(self) -> int:
        """The band of the strongest; -1 if there is none."""
        return self.bands.index(TOP) if TOP in self.bands else -1

    def of_units(self, begin: int, end: int) -> slice:
        """The rows of units `begin:end` (counted over all layers)."""
        return slice(*np.searchsorted(self.unit, [begin, end]).tolist())


def exemplar_rows(
    won: Winners,
    merged: Merged,
    layers: Sequence[Layer],
    fields: dict[str, Field],
    how: Preprocessing,
    grids: Mapping[str, Grid] | None = None,
) -> Rows:
    """Every exemplar of a merged scan that holds the images that `won`; `grids` say which tokens are patches.

    Those of no place have the whole image as their box.
    """
    image = np.searchsorted(merged.images["image"].to_numpy(), won.image_id)
    flat = won.position.astype(np.int64)
    offsets = unit_offsets(layers)
    layer_of = np.searchsorted(offsets, won.unit, side="right") - 1
    columns = np.array([layer.width or 1 for layer in layers])[layer_of]
    y, x = flat // columns, flat % columns
    box, clipped = _boxes(merged, layers, fields, how, layer_of, image, y, x)
    token = _tokens(layers, grids or {}, layer_of, y)
    nowhere = np.isin(token, (CLASS, REGISTER))
    if nowhere.any():
        sides = [merged.images[name].to_numpy()[image[nowhere]] for name in ("width", "height")]
        box[nowhere] = 0
        box[nowhere, 2:] = np.stack(sides, 1) if how.followed else how.size[::-1]
        clipped[nowhere] = False
    return Rows(
        won.bands, won.unit.astype(np.int32), won.band, won.rank.astype(np.int32), won.activation, image,
        y.astype(np.int32), x.astype(np.int32), box, clipped, token,
    )  # fmt: skip


def _tokens(layers: Sequence[Layer], grids: Mapping[str, Grid], layer_of: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What stands at each position, None in maps."""
    found = np.full(len(y), None, object)
    for number, layer in enumerate(layers):
        grid = grids.get(layer.name)
        if grid is not None and grid.tokens:
            here = layer_of == number
            found[here] = [grid.token(row) for row in y[here].tolist()]
    return found


def _boxes(
    merged: Merged, layers: Sequence[Layer], fields: dict[str, Field], how: Preprocessing, *rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    width, height = (merged.images[name].to_numpy() for name in ("width", "height"))
    of_layer = [fields[layer.name] for layer in layers]

    @cache
    def input_box(layer: int, y: int, x: int) -> tuple[Box, bool]:
        return of_layer[layer].box(y, x), of_layer[layer].clipped(y, x)

    @cache
    def way_back(size: tuple[int, int]) -> WayBack:
        return WayBack(*size, how)

    @cache
    def carried(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
        found = way_back(size).box(box)
        return found.left, found.top, found.right, found.bottom

    sizes = list(zip(width.tolist(), height.tolist(), strict=True))
    boxes = np.empty((len(rows[0]), 4), np.int32)
    clipped = np.empty(len(rows[0]), bool)
    for row, (layer, image, y, x) in enumerate(zip(*(column.tolist() for column in rows), strict=True)):
        box, clipped[row] = input_box(layer, y, x)
        boxes[row] = carried(box, sizes[image])
    return boxes, clipped
