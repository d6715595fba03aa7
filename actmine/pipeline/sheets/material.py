"""Reads from a run what its sheets show, a unit or a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import pyarrow.compute as pc
from PIL import Image

from actmine.pipeline.exemplars.heat import ActivationMap
from actmine.pipeline.exemplars.pictures import GONE
from actmine.pipeline.run import Run, picture
from actmine.pipeline.sheets.drawing import fitted
from actmine.pipeline.sheets.drawn import Drawn
from actmine.pipeline.sheets.region import has_focus, region_picture
from actmine.pipeline.sheets.unit_sheet import Whole
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import parquet_file
from actmine.pipeline.tables.view_tables import methods_of
from actmine.pipeline.words import METHODS, Shown
from actmine.schemas.crops import BOX
from actmine.schemas.exemplars import FOCUS

_BATCH = 64
_KEPT = 256

Cell = tuple[dict[str, Any], Image.Image | None]
"""A unit's row of the units table and a picture of its."""


class Wholes:
    """Whole images reduced for sheets, the latest few hundred kept; remembers those that have gone."""

    def __init__(self, run: Run, width: int, height: int) -> None:
        """`width` and `height` are what each is fitted into (pixels)."""
        self._run, self._size = run, (width, height)
        self.gone: dict[int, str] = {}
        self.of = lru_cache(_KEPT)(self._read)

    def _read(self, image_id: int) -> Whole | None:
        try:
            image, size = self._run.whole(image_id), self._run.place_of(image_id).size
        except (*GONE, KeyError) as error:
            self.gone[image_id] = str(error)
            return None
        return Whole(fitted(image, *self._size), *size)


def about(run: Run, layer: str, shown: Shown | None) -> list[str]:
    """Two lines for the head of a sheet: the run, and what a unit of the layer sees and what of it is shown."""
    record = run.record
    lines = [f"{record.get('model', 'network')} on {record.get('dataset', 'dataset')}"]
    seen = record.get("counts", {}).get("seen")
    lines[0] += f", {seen:,} images" if seen else ""
    row = run.layers.iloc[run.at(layer)]
    whole = "the whole input" if row["rf_global"] else f"{row['rf_height']} × {row['rf_width']} pixels of the input"
    return [*lines, f"a unit sees {whole}" + ("; shown is what matters of it" if shown is Shown.focus else "")]


def exemplars_with_views(run: Run, layer: str, unit: int, method: str) -> list[dict[str, Any]]:
    """A unit's exemplars by rank; where `method` is not empty, each with its `view` by that method, or None.

    What they show of their images is still to come: `with_crops`.
    """
    rows = run.exemplars(layer, unit).to_dict("records")
    if method:
        views = run.views(layer, unit, method).to_dict("records")
        by_rank = {(view["rank"], view["image_id"]): view["view"] for view in views}
        for row in rows:
            row["view"] = by_rank.get((row["rank"], row["image_id"]))
    return rows


def with_maps(run: Run, layer: str, unit: int, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A unit's exemplars, those that have one with their activation map as `map`; others with None."""
    found = {(row["rank"], row["image_id"]): row for row in run.maps(layer, unit).to_dict("records")}
    maps = [found.get((row["rank"], row["image_id"])) for row in rows]
    return [{**row, "map": ActivationMap.of(its) if its else None} for row, its in zip(rows, maps, strict=True)]


def with_crops(
    run: Run, rows: Sequence[dict[str, Any]], shown: Shown | None, most: int, sharp: bool = False
) -> list[dict[str, Any]]:
    """Exemplars, the first `most` that fire with what they show of their images as `crop`, an image; others with None.

    Pixels of the original, where it is still there, for a focus that is `shown`, and for all if `sharp`.
    """
    firing = [place for place, row in enumerate(rows) if row["activation"] > 0][:most]
    found = [{**row, "crop": None} for row in rows]
    some = [rows[place] for place in firing]
    truly = [sharp or (shown is Shown.focus and has_focus(row)) for row in some]
    for place, crop in zip(firing, run.crops(some, truly), strict=True):
        found[place]["crop"] = crop
    return found


def method_of(run: Run, layer: str, wanted: str = "") -> str:
    """By what method a layer has views: `wanted`, or if that is empty the first of all; empty where it has none."""
    return next(iter(methods_of(run.path, layer, [wanted] if wanted else METHODS)), "")


def visualizations(run: Run, layer: str, shown: Shown | None, drawings: Drawn) -> Iterator[Cell] | None:
    """Every unit's row with its visualization among `drawings`, or None where the layer has none at all.

    Units that are not drawn come as `best_crops` has them, their rows with `crop`.
    """
    columns = ["unit", "activation_max", "visualization"]
    drawn = [drawings.row(layer, row)["visualization"] is not None for row in _units(run, layer, columns)]
    if not any(drawn):
        return None
    units = (drawings.row(layer, row) for row in _units(run, layer, columns))
    pictures = ((row, picture(row.pop("visualization"))) for row in units)
    if all(drawn):
        return pictures
    both = zip(pictures, best_crops(run, layer, shown), strict=True)
    return (one if one[1] is not None else ({**other[0], "crop": True}, other[1]) for one, other in both)


def best_crops(run: Run, layer: str, shown: Shown | None) -> Iterator[Cell]:
    """Every unit's row with its strongest exemplar, if that fires, and of it what is `shown`."""
    strongest = _strongest(run, layer, shown)
    held = next(strongest, None)
    for row in _units(run, layer, ["unit", "activation_max"]):
        while held and held[0] < row["unit"]:
            held = next(strongest, None)
        yield row, held[1] if held and held[0] == row["unit"] else None


def _units(run: Run, layer: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    with parquet_file(table_file(run.path, "units", layer)) as file:
        for batch in file.iter_batches(_BATCH, columns=columns):
            yield from batch.to_pylist()


def _strongest(run: Run, layer: str, shown: Shown | None) -> Iterator[tuple[int, Image.Image | None]]:
    columns = ["unit", "rank", "activation", "image_id", "crop", *BOX]
    with parquet_file(table_file(run.path, "exemplars", layer)) as file:
        columns += [name for name in FOCUS if name in file.schema_arrow.names]
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=columns)
            first = pc.and_(pc.equal(rows["rank"], 0), pc.greater(rows["activation"], 0))
            for row in with_crops(run, rows.filter(first).to_pylist(), shown, len(rows)):
                yield row["unit"], region_picture(row, shown)
