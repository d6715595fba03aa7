"""Drawn positions as the rows of a table: which image, where in it the position is, and where on the map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Self

import numpy as np
import pyarrow as pa

from actmine.pipeline.exemplars.maps import cells as cells_together
from actmine.pipeline.network.grids import Grid
from actmine.pipeline.network.layer import Latents
from actmine.pipeline.preprocessing.geometry import WayBack
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.receptive_fields.receptive_field import Field
from actmine.pipeline.tables.map_tables import extent
from actmine.schemas.atlas_points import POINTS
from actmine.schemas.crops import BOX


@dataclass(frozen=True, slots=True)
class Points:
    """Positions that count: `rows` of `positions.DRAWN` without vectors, in the order of images; `vectors` `[N, U]`.

    Of `images` that were read, `lost` have a vector that is zero or not finite, or no position that counts.
    """

    rows: pa.Table
    vectors: np.ndarray
    image_id: np.ndarray
    images: int

    @classmethod
    def of(cls, drawn: pa.Table, units: int, members: Mapping[int, int]) -> Self:
        """Of rows of `DRAWN`; `members` counts the samples of each shard of the dataset."""
        drawn = drawn.sort_by([("shard", "ascending"), ("position", "ascending")]).combine_chunks()
        there = drawn.filter(pa.array(drawn["place"].to_numpy() >= 0))
        vectors = there["vector"].combine_chunks().flatten().to_numpy().reshape(-1, units)
        with np.errstate(over="ignore", invalid="ignore"):
            length = np.linalg.norm(vectors.astype(np.float64), axis=1)
        counts = np.isfinite(length) & (length > 0)
        rows = there.drop_columns(["vector"]).filter(pa.array(counts))
        numbers = sorted(members)
        first = dict(zip(numbers, np.cumsum([0, *(members[number] for number in numbers)]).tolist(), strict=False))
        begins = np.array([first[shard] for shard in rows["shard"].to_pylist()], np.int64)
        return cls(rows, vectors[counts], begins + rows["position"].to_numpy(), len(drawn))

    @property
    def lost(self) -> int:
        """Images without a vector that has a direction."""
        return self.images - len(self.rows)

    @property
    def labels(self) -> np.ndarray:
        """Class numbers, int64 `[N]`; -1 for none."""
        found: np.ndarray = self.rows["label"].fill_null(-1).to_numpy().astype(np.int64)
        return found

    def words(self, known: Sequence[str]) -> list[str | None]:
        """Their labels in words: what the shard says of the image, else what is `known` of the dataset's classes."""
        return [
            name if name is not None else known[label] if label is not None and 0 <= label < len(known) else None
            for label, name in zip(self.rows["label"].to_pylist(), self.rows["label_name"].to_pylist(), strict=True)
        ]


def places_of(points: Points, its: Latents, field: Field, grid: Grid | None, how: Preprocessing) -> dict[str, pa.Array]:
    """The columns of where in its image each position is: y, x, its box, and the middle of its own part."""
    layer, place = its.of, points.rows["place"].to_numpy()
    width = layer.width or 1
    y, x = place // width + its.first, place % width
    sizes = list(zip(points.rows["width"].to_pylist(), points.rows["height"].to_pylist(), strict=True))
    ends = extent(field, grid) if grid is not None and how.followed else None

    @cache
    def back(size: tuple[int, int]) -> WayBack:
        return WayBack(*size, how)

    @cache
    def seen(size: tuple[int, int], row: int, column: int) -> tuple[int, int, int, int]:
        box = back(size).box(field.box(row, column))
        return box.left, box.top, box.right, box.bottom

    @cache
    def middle(size: tuple[int, int], row: int, column: int) -> tuple[float, float] | None:
        if ends is None or grid is None:
            return None
        if grid.tokens:
            row, column = divmod(row - grid.first, grid.width)
        if not (0 <= row < grid.height and 0 <= column < grid.width):
            return None
        found = []
        for axis, at, count in ((0, column, grid.width), (1, row, grid.height)):
            begin, end = ends[axis]
            step = (end - begin) / (-(-count // cells_together(count)) * cells_together(count))
            found.append(back(size).point(axis, begin + (at + 0.5) * step))
        return found[0], found[1]

    each = list(zip(sizes, y.tolist(), x.tolist(), strict=True))
    boxes = np.array([seen(*one) for one in each], np.int32).reshape(-1, 4)
    middles = [middle(*one) for one in each]
    nowhere = np.full(len(y), layer.height is None)
    return {
        "y": pa.array(y.astype(np.int32), pa.int32(), mask=nowhere),
        "x": pa.array(x.astype(np.int32), pa.int32(), mask=nowhere),
        **{side: pa.array(boxes[:, at]) for at, side in enumerate(BOX)},
        "place_x": pa.array([None if one is None else one[0] for one in middles], pa.float32()),
        "place_y": pa.array([None if one is None else one[1] for one in middles], pa.float32()),
    }


def point_table(
    points: Points, places: Mapping[str, pa.Array], words: Sequence[str | None], on_map: np.ndarray, cells: np.ndarray
) -> pa.Table:
    """The rows of the points table; `on_map` `[N, 2]` are places on the map, `cells` `[N, levels]` their cells."""
    begins = np.arange(len(cells) + 1, dtype=np.int32) * cells.shape[1]
    columns = {
        "image_id": pa.array(points.image_id),
        "key": points.rows["key"],
        **{name: points.rows[name] for name in ("label", "width", "height")},
        "label_name": pa.array(words, pa.string()),
        **places,
        "map_x": pa.array(on_map[:, 0]),
        "map_y": pa.array(on_map[:, 1]),
        "cell": pa.ListArray.from_arrays(begins, cells.astype(np.int32).reshape(-1)),
    }
    return pa.table([columns[name] for name in POINTS.names], schema=POINTS)
