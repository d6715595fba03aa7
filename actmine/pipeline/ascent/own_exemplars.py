"""Reads a unit's own exemplars out of a mined run, for recipes that need them."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
from torch import Tensor

from actmine.pipeline.ascent.references import Exemplar, Placing
from actmine.pipeline.errors import UserError
from actmine.pipeline.exemplars.exemplar_columns import with_bands
from actmine.pipeline.exemplars.pictures import Pixels, encode
from actmine.pipeline.readings.statistics_options import TOP
from actmine.pipeline.run import Run
from actmine.pipeline.spoken import command
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import parquet_file
from actmine.schemas.crops import BOX

_COLUMNS = ["unit", "rank", "band", "activation", "image_id", "y", "x", *BOX, "crop"]
_READ_AT_ONCE = 16


def read_exemplars(run: Run, layer: str, units: Iterable[int], count: int) -> dict[int, tuple[Exemplar, ...]]:
    """Up to `count` exemplars of each unit that make it fire, best first; of one that never fires, all the same.

    An image of which the run holds a reduced picture alone is read again; where it has gone, the picture has to do.
    Raises `UserError` where the run has no exemplars of the layer.
    """
    wanted = sorted(set(units))
    try:
        with parquet_file(table_file(run.path, "exemplars", layer)) as file:
            column = file.schema_arrow.get_field_index("unit")
            groups = [group for group in range(file.num_row_groups) if _holds(file, group, column, wanted)]
            rows = file.read_row_groups(groups, [name for name in _COLUMNS if name in file.schema_arrow.names])
    except FileNotFoundError:
        raise UserError(
            f"{run.path} has no exemplars of layer {layer!r}, from which its units would be drawn. "
            f"`{command('mine')}` mines them."
        ) from None
    rows = with_bands(rows.filter(pa.compute.is_in(rows["unit"], pa.array(wanted, pa.int32()))))
    of_unit: dict[int, list[dict[str, Any]]] = {unit: [] for unit in wanted}
    for row in rows.filter(pa.compute.equal(rows["band"], TOP)).to_pylist():
        of_unit[row["unit"]].append(row)
    chosen = [row for unit in wanted for row in _firing(of_unit[unit])[:count]]
    with ThreadPoolExecutor(_READ_AT_ONCE, "reference") as pool:
        crops = list(pool.map(_crop, [run.pictures.of(row) for row in chosen]))
    found: dict[int, list[Exemplar]] = {unit: [] for unit in wanted}
    for row, crop in zip(chosen, crops, strict=True):
        if crop is not None:
            places = (row["y"] or 0, row["x"] or 0, row["left"], row["top"], *run.place_of(row["image_id"]).size)
            found[row["unit"]].append(Exemplar(row["rank"], crop, *places))
    return {unit: tuple(found[unit]) for unit in wanted}


def originals_gone(run: Run) -> bool:
    """Whether exemplars may come out of reduced pictures: the run's first image is neither held in full nor there."""
    return not run.pictures.whole(int(run.images["image_id"].iloc[0])).sharp()[1]


def _crop(pixels: Pixels) -> bytes | None:
    """A crop of original pixels, encoded."""
    if pixels.data is not None and not pixels.whole:
        return pixels.data
    image, _ = pixels.sharp()
    return encode(image) if image else None


def _holds(file: pa.parquet.ParquetFile, group: int, column: int, units: list[int]) -> bool:
    span = file.metadata.row_group(group).column(column).statistics
    return span is None or any(span.min <= unit <= span.max for unit in units)


def _firing(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted([row for row in rows if row["activation"] > 0] or rows, key=lambda row: row["rank"])


def references_of(run: Run, layer: str, units: Iterable[int], count: int, placing: Placing) -> dict[int, Tensor]:
    """The best exemplars of each unit that make it fire, on the canvas: `[R, C, H, W]` in 0..1, R up to `count`.

    Raises `UserError` where the run has no exemplars of the layer.
    """
    return {unit: placing(found) for unit, found in read_exemplars(run, layer, units, count).items()}
