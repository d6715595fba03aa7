"""The atlas for programs: rows of the run's tables as JSON, under the tables' own names; pictures are addresses."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from actmine.pipeline.atlas.layer_pages import sorts_of
from actmine.pipeline.atlas.links import Picture
from actmine.pipeline.atlas.pages import Atlas
from actmine.pipeline.errors import UserError
from actmine.pipeline.notes import Target
from actmine.pipeline.storage.files import table_file
from actmine.schemas.directions import DIRECTIONS
from actmine.schemas.exemplars import EXEMPLARS
from actmine.schemas.fields import IMAGE
from actmine.schemas.images import IMAGES
from actmine.schemas.labels import LABELS
from actmine.schemas.layers import LAYERS
from actmine.schemas.neighbors import NEIGHBORS
from actmine.schemas.units import UNITS

MOST_ROWS = 1000
"""Of an answer with a page of rows."""
ROWS = 100
_HERE_ALONE = ("url", "asked", "tables", "machine")
"""What of run.json tells of the machine, not of the run."""


class NoWord(UserError):
    """A word behind an address that is none of its kind."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What an address asks for, checked: parts of its path, and the words behind it."""

    layer: str = ""
    unit: int = 0
    image: int = 0
    sort: str = "unit"
    reverse: bool = False
    label: str = ""
    limit: int = ROWS
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """One address: what it says in a sentence, of which table its rows are, and what makes them.

    `one` is a row alone, not a list; `make` gives None where there is nothing of that number.
    """

    path: str
    says: str
    make: Callable[[Atlas, Asked], Any | None]
    schema: pa.Schema | None = None
    one: bool = False
    paged: bool = False


def _run(atlas: Atlas, asked: Asked) -> Mapping[str, Any]:
    return {name: value for name, value in atlas.queries.run.record.items() if name not in _HERE_ALONE}


def _layers(atlas: Atlas, asked: Asked) -> list[dict[str, Any]]:
    rows = [row for row in atlas.queries.table("layers.parquet") if row["layer"] in atlas.queries.layers]
    return [row | {"address": f"/api{atlas.links.layer(row['layer'])}"} for row in rows]


def _units(atlas: Atlas, asked: Asked) -> dict[str, Any]:
    units = atlas.queries.units(asked.layer)
    if asked.sort not in (known := sorts_of(units)):
        raise NoWord(f"Units of {asked.layer} are sorted by one of {', '.join(known)}, not by {asked.sort!r}.")
    order = units.order(asked.sort, asked.reverse)
    chosen = order[units.matching(asked.label)[order]] if asked.label else order
    numbers = units.unit[chosen[asked.offset : asked.offset + asked.limit]].tolist()
    path = table_file(atlas.queries.run.path, "units", asked.layer)
    rows = atlas.queries.reading.rows_of(path, _columns(UNITS), numbers) if numbers else None
    there = {} if rows is None else {row["unit"]: row for row in _of_units(rows, numbers)}
    return {
        "count": len(chosen), "offset": asked.offset,
        "rows": [_unit_row(atlas, asked.layer, there[number]) for number in numbers],
    }  # fmt: skip


def _of_units(rows: pa.Table, numbers: Collection[int]) -> list[dict[str, Any]]:
    return list(rows.filter(pa.array(np.isin(rows["unit"].to_numpy(), list(numbers)))).to_pylist())


def _unit(atlas: Atlas, asked: Asked) -> dict[str, Any] | None:
    rows = _of(atlas, "units", asked, UNITS)
    return _unit_row(atlas, asked.layer, rows[0]) if rows else None


def _unit_row(atlas: Atlas, layer: str, row: dict[str, Any]) -> dict[str, Any]:
    unit = row["unit"]
    drawn = atlas.queries.tile(layer, unit)
    picture = atlas.links.picture(Picture(layer, unit, "visualization")) if drawn and drawn.drawn else None
    known = atlas.notes.of(Target(layer, unit))
    return row | {
        "layer": layer, "visualization": picture, "address": atlas.links.unit(layer, unit), "star": known.star,
        "tags": list(known.tags), "noted_name": known.name or None, "notes": [note.text for note in known.notes],
    }  # fmt: skip


def _exemplars(atlas: Atlas, asked: Asked) -> list[dict[str, Any]] | None:
    def crop(row: Mapping[str, Any]) -> str:
        return atlas.links.picture(Picture(asked.layer, asked.unit, "crop", (str(row["rank"]),)))

    rows = _of(atlas, "exemplars", asked, EXEMPLARS)
    found = [row | {"crop": crop(row), "image": atlas.links.whole(row["image_id"])} for row in rows]
    return found if found or _is_unit(atlas, asked) else None


def _rows(table: str, schema: pa.Schema) -> Callable[[Atlas, Asked], list[dict[str, Any]] | None]:
    def make(atlas: Atlas, asked: Asked) -> list[dict[str, Any]] | None:
        return _of(atlas, table, asked, schema) if _is_unit(atlas, asked) else None

    return make


def _neighbors(atlas: Atlas, asked: Asked) -> list[dict[str, Any]] | None:
    return atlas.queries.neighbors(asked.layer, asked.unit) if _is_unit(atlas, asked) else None


def _image(atlas: Atlas, asked: Asked) -> dict[str, Any] | None:
    path = atlas.queries.run.path / "images.parquet"
    rows = atlas.queries.reading.rows(path, _columns(IMAGES), asked.image)
    if rows is None or not rows.num_rows:
        return None
    return rows.to_pylist()[0] | {"image": atlas.links.whole(asked.image), "address": atlas.links.image(asked.image)}


def _is_unit(atlas: Atlas, asked: Asked) -> bool:
    return asked.unit < atlas.queries.layers[asked.layer].units


def _of(atlas: Atlas, table: str, asked: Asked, schema: pa.Schema) -> list[dict[str, Any]]:
    rows = atlas.queries.of_unit(table, asked.layer, asked.unit, _columns(schema))
    return [{"layer": asked.layer} | row for row in rows]


def _columns(schema: pa.Schema) -> list[str]:
    """All but pictures."""
    return [each.name for each in schema if each.type != IMAGE]


ANSWERS = (
    Answer("/api/run", "What the run was made from: run.json, without what tells of the machine.", _run),
    Answer("/api/layers", "The layers, in the order in which the network runs them.", _layers, LAYERS),
    Answer("/api/layer/{layer}", "Units of a layer, sorted and chosen, a page of them.", _units, UNITS, paged=True),
    Answer("/api/layer/{layer}/{unit}", "A unit with all its numbers.", _unit, UNITS, one=True),
    Answer("/api/layer/{layer}/{unit}/exemplars", "Its exemplars, of all bands.", _exemplars, EXEMPLARS),
    Answer("/api/layer/{layer}/{unit}/labels", "Its label statistics.", _rows("labels", LABELS), LABELS),
    Answer("/api/layer/{layer}/{unit}/neighbors", "The units most alike.", _neighbors, NEIGHBORS),
    Answer(
        "/api/layer/{layer}/{unit}/directions", "The latents whose directions lie nearest.",
        _rows("directions", DIRECTIONS), DIRECTIONS,
    ),
    Answer("/api/image/{image}", "An image that an exemplar names.", _image, IMAGES, one=True),
)  # fmt: skip


def plain(value: Any) -> Any:
    """A value as JSON can say it: what is no finite number is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items() if not isinstance(each, bytes)}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value
