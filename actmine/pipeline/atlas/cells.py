"""Activation atlases of a run as records: the cells of each level; one cell, its images and units; their pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import pyarrow.compute as pc

from actmine.pipeline.atlas.images import named
from actmine.pipeline.atlas.links import Picture
from actmine.pipeline.atlas.queries import Queries
from actmine.pipeline.atlas.records import Box, Unit
from actmine.pipeline.naming import ancestors, label_of_cell
from actmine.pipeline.storage.files import table_file
from actmine.schemas.activation_atlas import NOTED
from actmine.schemas.atlas_cells import CELLS
from actmine.schemas.atlas_points import POINTS
from actmine.schemas.crops import BOX

CELL, POSITION = "cell", "position"
"""Kinds of pictures: what was drawn for a cell, whose number counts all cells of a layer; what a position sees."""
_WIDEST = 14
"""Cells a side of the level that is shown first, at most."""
_PLACE, _LABEL = ("level", "side", "row", "column", "images"), ("label", "label_name", "label_share", "label_chance")


@dataclass(frozen=True, slots=True)
class Tile:
    """One cell as the map shows it; `label` is the one that may be named, `share` and `chance` its evidence."""

    layer: str
    number: int
    level: int
    side: int
    row: int
    column: int
    images: int
    label: str
    share: float | None
    chance: float | None

    @property
    def picture(self) -> Picture:
        """What was drawn for it."""
        return Picture(self.layer, self.number, CELL)

    @property
    def place(self) -> int:
        """Its number within its level: row * side + column."""
        return self.row * self.side + self.column

    @property
    def box(self) -> tuple[float, float, float]:
        """Left, top and side on a map that is 1,000 wide."""
        size = 1000 / self.side
        return round(self.column * size, 2), round(self.row * size, 2), round(size, 2)


@dataclass(frozen=True, slots=True)
class Level:
    """A level of the map: cells a side, and those that have enough images, by row and column."""

    number: int
    side: int
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """An image of a cell: what its position sees, and where in it that is (pixels of the original)."""

    image_id: int
    key: str
    label: str | None
    crop: Picture
    box: Box
    place: tuple[float, float] | None
    size: tuple[int, int]
    kept: Picture | None
    """The whole image where it is kept with the atlas; else the run shows it as any of its own."""

    @property
    def sees_all(self) -> bool:
        """Whether the position sees the whole image."""
        return self.box == (0, 0, *self.size)


@dataclass(frozen=True, slots=True)
class Cell:
    """All about one cell, see the schema; `units` are those that stand out, with their mean and how far above."""

    tile: Tile
    about: Mapping[str, Any]
    path: tuple[str, ...]
    images: tuple[Shown, ...]
    units: tuple[tuple[Unit, float, float], ...]
    around: tuple[tuple[Tile | None, ...], ...]
    coarser: Tile | None
    finer: tuple[Tile, ...]


def mapped(queries: Queries) -> dict[str, Mapping[str, Any]]:
    """What run.json says of activation atlases, by the layers that are shown and have one."""
    known = queries.run.record.get(NOTED, {})
    return {layer: known[layer] for layer in queries.layers if layer in known}


def levels(queries: Queries, layer: str) -> tuple[Level, ...]:
    """The levels of a layer's map, coarse ones first; none where it has no map. Raises `UserError` as reading does."""
    if layer not in mapped(queries):
        return ()
    known = _LEVELS.setdefault(queries, {})
    if layer not in known:
        known[layer] = _levels(queries, layer)
    return known[layer]


_LEVELS: WeakKeyDictionary[Queries, dict[str, tuple[Level, ...]]] = WeakKeyDictionary()


def _levels(queries: Queries, layer: str) -> tuple[Level, ...]:
    rows = queries.reading.rows(table_file(queries.run.path, "atlas_cells", layer), (*_PLACE, *_LABEL, "label_q"))
    found: dict[int, list[Tile]] = {}
    for number, row in enumerate([] if rows is None else rows.to_pylist()):
        label = label_of_cell(row)
        share, chance = (row["label_share"], row["label_chance"]) if label else (None, None)
        level, side, at_row, column, images = (row[name] for name in _PLACE)
        tile = Tile(layer, number, level, side, at_row, column, images, label, share, chance)
        found.setdefault(tile.level, []).append(tile)
    return tuple(Level(level, tiles[0].side, tuple(tiles)) for level, tiles in sorted(found.items()))


def first_level(of: tuple[Level, ...]) -> int:
    """The place of the level that is shown unless another one is asked for."""
    return max((at for at, level in enumerate(of) if level.side <= _WIDEST), default=0)


def cell(queries: Queries, layer: str, level: int, place: int) -> Cell | None:
    """The cell at a place of a level (row * side + column); None where there is none."""
    of = levels(queries, layer)
    by_place = {each.number: {tile.place: tile for tile in each.tiles} for each in of}
    tile = by_place.get(level, {}).get(place)
    if tile is None:
        return None
    columns = [name for name in CELLS.names if name not in ("mean", "picture")]
    rows = queries.reading.rows(table_file(queries.run.path, "atlas_cells", layer), columns)
    about = rows.slice(tile.number, 1).to_pylist()[0] if rows is not None else {}
    lists = (about.get(name) or () for name in ("units", "unit_mean", "unit_above"))
    units = [(queries.tile(layer, unit), mean, above) for unit, mean, above in zip(*lists, strict=True)]
    near = range(-1, 2)
    around = tuple(
        tuple(_at(by_place[level], tile.row + down, tile.column + right, tile.side) for right in near) for down in near
    )
    path = ancestors(about.get("label_path"))[1:] if tile.label else []
    return Cell(
        tile, about, tuple(path), _shown(queries, layer, about.get("shown") or ()),
        tuple((unit, mean, above) for unit, mean, above in units if unit is not None), around,
        _coarser(of, by_place, tile), _finer(of, tile),
    )  # fmt: skip


def _at(tiles: Mapping[int, Tile], row: int, column: int, side: int) -> Tile | None:
    return tiles.get(row * side + column) if 0 <= row < side and 0 <= column < side else None


def _coarser(of: tuple[Level, ...], by_place: Mapping[int, Mapping[int, Tile]], tile: Tile) -> Tile | None:
    """The cell of the level before that holds the middle of this one."""
    before = next((level for level in of if level.number == tile.level - 1), None)
    if before is None:
        return None
    row, column = (int((at + 0.5) / tile.side * before.side) for at in (tile.row, tile.column))
    return by_place[before.number].get(row * before.side + column)


def _finer(of: tuple[Level, ...], tile: Tile) -> tuple[Tile, ...]:
    """The cells of the next level whose middle lies in this one."""
    after = next((level for level in of if level.number == tile.level + 1), None)
    inside = (
        each for each in (after.tiles if after else ())
        if int((each.row + 0.5) / each.side * tile.side) == tile.row
        and int((each.column + 0.5) / each.side * tile.side) == tile.column
    )  # fmt: skip
    return tuple(inside)


def _shown(queries: Queries, layer: str, images: Any) -> tuple[Shown, ...]:
    columns = [name for name in POINTS.names if name != "cell"]
    path = table_file(queries.run.path, "atlas_points", layer)
    found = []
    for image_id in images:
        rows = queries.reading.rows(path, columns, image_id)
        for row in [] if rows is None else rows.to_pylist():
            left, top, right, bottom = (row[side] for side in BOX)
            place = None if row["place_x"] is None else (row["place_x"], row["place_y"])
            size, crop = (row["width"], row["height"]), Picture(layer, image_id, POSITION)
            kept = None if queries.images.size(image_id) else Picture(layer, image_id, POSITION, ("whole",))
            found.append(Shown(image_id, row["key"], named(row), crop, (left, top, right, bottom), place, size, kept))
    return tuple(found)


def picture_of(queries: Queries, picture: Picture) -> bytes | None:
    """An encoded picture of one of the two kinds; None where there is none. Raises `UserError` as reading does."""
    whole = picture.kind == POSITION and picture.marks == ("whole",)
    if picture.layer not in mapped(queries) or (picture.marks and not whole):
        return None
    name, column = ("atlas_cells", "picture") if picture.kind == CELL else ("atlas_crops", "whole" if whole else "crop")
    path = table_file(queries.run.path, name, picture.layer)
    if picture.kind == CELL:
        rows = queries.reading.rows(path, [column])
        rows = None if rows is None or picture.unit >= len(rows) else rows.slice(picture.unit, 1)
    else:
        rows = queries.reading.rows(path, [column], picture.unit)
    if rows is None or not len(rows):
        return None
    data: bytes | None = pc.struct_field(rows[column], "bytes")[0].as_py()
    return data
