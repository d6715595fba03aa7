"""`maps/`: the activation maps of first exemplars, and where in their images they lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from actmine.pipeline.exemplars.exemplars import Rows
from actmine.pipeline.exemplars.maps import KEPT, cells
from actmine.pipeline.network.grids import Grid
from actmine.pipeline.network.layers import Layer
from actmine.pipeline.preprocessing.geometry import WayBack
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.receptive_fields.receptive_field import Axis, Field
from actmine.pipeline.scanning.merge import Merged
from actmine.pipeline.storage.files import remove_files, table_file
from actmine.pipeline.storage.parquet import read_arrow, write_table
from actmine.schemas.maps import MAPS, PLACE

_ROWS_A_GROUP = 4096


class MapTables:
    """Writes the maps of a run, layer by layer, from the Arrow files of `KEPT` in which they were kept.

    `grids` are those of layers by name. All maps are in memory together. `norm_ratios` is that of each
    exemplar's token, NaN where there is none.
    """

    def __init__(
        self,
        run: Path,
        fields: Mapping[str, Field],
        grids: Mapping[str, Grid],
        merged: Merged,
        rows: Rows,
        how: Preprocessing,
        paths: Sequence[Path],
    ) -> None:
        self.run, self.fields, self.grids, self.rows, self.how = run, fields, grids, rows, how
        self.images = merged.images["image"].to_numpy()
        self.sizes = np.stack([merged.images[name].to_numpy() for name in ("width", "height")], 1)
        kept = pa.concat_tables([KEPT.empty_table(), *(read_arrow(path, KEPT) for path in paths)]).combine_chunks()
        ratio, is_map = kept["token_norm_ratio"], kept["map"].is_valid().to_numpy()
        known = ratio.is_valid().to_numpy()
        self.norm_ratios = np.full(len(rows.unit), np.nan, np.float32)
        self.norm_ratios[kept["row"].to_numpy()[known]] = ratio.filter(pa.array(known)).to_numpy()
        kept = kept.filter(pa.array(is_map))
        self.kept = kept.take(np.argsort(kept["row"].to_numpy(), kind="stable"))
        self.known = self.kept["row"].to_numpy()
        remove_files((run / "maps").glob("*.parquet"))

    def write_layer(self, layer: Layer, first: int) -> None:
        """The file of one layer, whose units count from `first`; none for a layer without maps."""
        part = self.rows.of_units(first, first + layer.units)
        begin, end = np.searchsorted(self.known, [part.start, part.stop]).tolist()
        if layer.name in self.grids and end > begin:
            write_table(table_file(self.run, "maps", layer.name, new=True), MAPS, self._parts(layer, first, begin, end))

    def _parts(self, layer: Layer, first: int, begin: int, end: int) -> Iterator[pa.Table]:
        grid = self.grids[layer.name]
        for at in range(begin, end, _ROWS_A_GROUP):
            kept = self.kept.slice(at, min(_ROWS_A_GROUP, end - at))
            row = self.known[at : at + len(kept)]
            count, image = len(row), self.rows.image[row]
            columns = {
                "layer": pa.array([layer.name] * count, pa.string()),
                "unit": pa.array(self.rows.unit[row] - first),
                "rank": pa.array(self.rows.rank[row]),
                "band": pa.DictionaryArray.from_arrays(self.rows.band[row], list(self.rows.bands)).dictionary_decode(),
                "image_id": pa.array(self.images[image]),
                "cell_height": pa.array(np.full(count, cells(grid.height), np.int32)),
                "cell_width": pa.array(np.full(count, cells(grid.width), np.int32)),
                **{name: kept[name] for name in ("height", "width", "low", "high", "map")},
                **self._tokens(grid, kept),
                **self._places(layer, grid, image),
            }
            yield pa.table([columns[name] for name in MAPS.names], schema=MAPS)

    def _tokens(self, grid: Grid, kept: pa.Table) -> dict[str, pa.Array]:
        if not grid.tokens:
            return {
                "first_token": pa.nulls(len(kept), pa.int32()),
                "other_tokens": pa.nulls(len(kept), pa.list_(pa.float32())),
            }
        return {
            "first_token": pa.array(np.full(len(kept), grid.first, np.int32)),
            "other_tokens": kept["other_tokens"],
        }

    def _places(self, layer: Layer, grid: Grid, image: np.ndarray) -> dict[str, pa.Array]:
        """Where each map lies in its image; the last row may stand for fewer positions than the others."""
        if not self.how.followed:
            return {name: pa.nulls(len(image), pa.float32()) for name in PLACE}
        ends = extent(self.fields[layer.name], grid)
        sizes, which = np.unique(self.sizes[image], axis=0, return_inverse=True)
        places = []
        for size in sizes.tolist():
            back = WayBack(size[0], size[1], self.how)
            places.append([back.point(axis, ends[axis][end]) for end in (0, 1) for axis in (0, 1)])
        return {
            name: pa.array(np.array(places, np.float32)[which.reshape(-1), place]) for place, name in enumerate(PLACE)
        }


def extent(field: Field, grid: Grid, pooled: bool = True) -> tuple[tuple[float, float], tuple[float, float]]:
    """From where to where in the network's input the columns and the rows of a map that is kept reach (pixels).

    Each column is around the middle of its receptive field; where fields are the whole input or follow no rule,
    columns are equal parts of the input. Without `pooled` the map has all its rows and columns, however many.
    """
    whole = field.whole or grid.tokens
    return _extent(field.x, grid.width, whole, pooled), _extent(field.y, grid.height, whole, pooled)


def _extent(axis: Axis, count: int, whole: bool, pooled: bool) -> tuple[float, float]:
    each = cells(count) if pooled else 1
    step = axis.length / count if whole or axis.stride is None else float(axis.stride)
    begin = 0.0 if whole or axis.stride is None else axis.start + (axis.size - step) / 2
    return begin, begin + -(-count // each) * each * step
