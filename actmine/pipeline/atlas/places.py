"""What fires at a place of an image: of the units that it tops, read from the maps that a run keeps of it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from actmine.pipeline.atlas.links import Picture
from actmine.pipeline.atlas.queries import Queries
from actmine.pipeline.atlas.records import Exemplar, Heat
from actmine.pipeline.exemplars.heat import ActivationMap
from actmine.pipeline.storage.files import table_file
from actmine.schemas.maps import LEVELS, MAPS, PLACE

MOST = 60
"""How many units a list shows."""
Found = Sequence[tuple[int, int, int]]
"""Exemplars by layer (counted), unit and rank."""


@dataclass(frozen=True, slots=True)
class Firing:
    """A unit that fires at a place of an image: its `activation` there, to within `within`, and what `share` that is of
    its largest over the dataset."""

    exemplar: Exemplar
    activation: float
    share: float
    within: float = 0.0


@dataclass(frozen=True, slots=True)
class There:
    """What is known of a place `x`, `y` of an image (pixels of the original), the highest share first, cut at `MOST`.

    Of `topped` units that the image tops `mapped` have a map of it, of which `count` fire there. `around` are those
    without a map whose field, where they are strongest, holds the place (`holding` of them), best ranks first.
    """

    x: int
    y: int
    firing: tuple[Firing, ...]
    count: int
    mapped: int
    topped: int
    around: tuple[Exemplar, ...] = ()
    holding: int = 0


def place_said(size: tuple[int, int], said: str, x: str, y: str) -> tuple[int, int] | None:
    """The place that an address says, `x,y` or one by one, within an image of `size`; None where it says none."""
    parts = said.split(",") if said else [x, y]
    if len(parts) != 2 or not all(each.isascii() and each.isdigit() and len(each) < 7 for each in parts):
        return None
    across, down = map(int, parts)
    return (across, down) if across < size[0] and down < size[1] else None


def units_at(queries: Queries, found: Found, x: int, y: int) -> There:
    """What of the exemplars `found`, all of one image, fires at a place of it.

    Raises `UserError` where a table cannot be read.
    """
    names = list(queries.layers)
    firing: list[Firing] = []
    around: list[Exemplar] = []
    mapped = 0
    for number in sorted({layer for layer, _, _ in found}):
        name, wanted = names[number], {(unit, rank) for layer, unit, rank in found if layer == number}
        best = {(unit, 0) for unit, _ in wanted}
        seen = queries.seen_at(name, wanted | best)
        maps = maps_of(queries, name, wanted)
        for key in wanted & seen.keys():
            each = seen[key]
            if key not in maps or (activations := ActivationMap.of(maps[key])).place is None:
                if each.box and each.box[0] <= x < each.box[2] and each.box[1] <= y < each.box[3]:
                    around.append(each)
                continue
            mapped += 1
            at = cell(activations, x, y)
            most = seen[key[0], 0].activation if (key[0], 0) in seen else each.activation
            value = None if at is None else float(activations.values[at])
            if at is None or value is None or not most or value / most <= 0:  # of the lowest both are negative
                continue
            own = _own_cell(each, maps[key])
            within = 0.0 if at == own else float(np.ptp(activations.values)) / LEVELS / 2
            value = each.activation if at == own else value
            firing.append(Firing(each, value, value / most, within))
    firing.sort(key=lambda one: (-one.share, names.index(one.exemplar.layer), one.exemplar.unit))
    around.sort(key=lambda one: (one.rank, names.index(one.layer), one.unit))
    return There(
        x, y, tuple(firing[:MOST]), len(firing), mapped, len(found), tuple(around[:MOST]), len(around)
    )  # fmt: skip


def cell(activations: ActivationMap, x: float, y: float) -> tuple[int, int] | None:
    """The row and column of a map around a pixel of its image; None beyond the map, or without a known place."""
    if activations.place is None:
        return None
    left, top, right, bottom = activations.place
    height, width = activations.values.shape
    row = math.floor((y + 0.5 - top) / (bottom - top) * height)
    column = math.floor((x + 0.5 - left) / (right - left) * width)
    return (row, column) if 0 <= row < height and 0 <= column < width else None


def maps_of(
    queries: Queries, layer: str, wanted: Collection[tuple[int, int]], columns: Sequence[str] = tuple(MAPS.names)
) -> dict[tuple[int, int], dict[str, Any]]:
    """The rows of a layer's maps by unit and rank, of those `wanted` that are kept. Raises as reading does."""
    needed = dict.fromkeys(("unit", "rank", *columns))
    file = table_file(queries.run.path, "maps", layer)
    rows = queries.reading.rows_of(file, list(needed), sorted({unit for unit, _ in wanted}))
    if rows is None:
        return {}
    pairs = zip(rows["unit"].to_pylist(), rows["rank"].to_pylist(), strict=True)
    taken = rows.take([at for at, pair in enumerate(pairs) if pair in wanted] or _NONE)
    return {(row["unit"], row["rank"]): row for row in taken.to_pylist()}


_NONE = np.empty(0, np.int64)


def with_heat(queries: Queries, exemplars: Sequence[Exemplar]) -> dict[tuple[str, int, int], Heat]:
    """The heat of those exemplars that have a map in a known place, by layer, unit and rank."""
    found = {}
    for layer in dict.fromkeys(each.layer for each in exemplars):
        wanted = {(each.unit, each.rank) for each in exemplars if each.layer == layer}
        for (unit, rank), row in maps_of(queries, layer, wanted, PLACE).items():
            left, top, right, bottom = (row[side] for side in PLACE)
            if left is not None:
                picture = Picture(layer, unit, "heat", (str(rank),))
                found[layer, unit, rank] = Heat(picture, left, top, right - left, bottom - top)
    return found


def _own_cell(exemplar: Exemplar, row: Mapping[str, Any]) -> tuple[int, int] | None:
    """Where in its map an exemplar's activation is."""
    if exemplar.position is None:
        return None
    y, x = exemplar.position
    if row["first_token"] is not None:
        return divmod(y - row["first_token"], row["width"]) if y >= row["first_token"] else None
    return y // row["cell_height"], x // row["cell_width"]
