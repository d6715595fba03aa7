"""Rows of the run's tables for programs: of the run, a layer, a unit, an image, a search, of notes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from actmine.pipeline.atlas.desk import listed, place_of
from actmine.pipeline.atlas.interface import Asked, NoWord, Part
from actmine.pipeline.atlas.layer_pages import sorts_of
from actmine.pipeline.atlas.links import Picture
from actmine.pipeline.atlas.pages import Atlas
from actmine.pipeline.atlas.search import search
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.unit_maps import MAP_FILES, is_fresh
from actmine.pipeline.words import MapOf
from actmine.schemas.exemplars import EXEMPLARS
from actmine.schemas.fields import IMAGE
from actmine.schemas.images import IMAGES
from actmine.schemas.units import UNITS

Row = dict[str, Any]
_HERE_ALONE = ("url", "asked", "tables", "machine")
"""What of run.json tells of the machine, not of the run."""


def run(atlas: Atlas, asked: Asked) -> Row:
    """run.json, without what tells of the machine."""
    return {name: value for name, value in atlas.queries.run.record.items() if name not in _HERE_ALONE}


def rows_of_run(name: str, schema: pa.Schema) -> Callable[[Atlas, Asked], Part]:
    """Reads a table of the whole run; one that the run lacks has no rows."""

    def make(atlas: Atlas, asked: Asked) -> Part:
        rows = atlas.queries.reading.rows(atlas.queries.run.path / f"{name}.parquet", _columns(schema), keep=False)
        return Part(0, []) if rows is None else Part(len(rows), rows.slice(asked.offset, asked.limit).to_pylist())

    return make


def rows_of_map(by: MapOf, schema: pa.Schema) -> Callable[[Atlas, Asked], Part]:
    """Reads a map; one that is not of what the run holds now has no rows."""
    read = rows_of_run(MAP_FILES[by].removesuffix(".parquet"), schema)
    return lambda atlas, asked: read(atlas, asked) if is_fresh(atlas.queries.run.record, by) else Part(0, [])


def rows_of_files(
    schema: pa.Schema, files: Callable[[Atlas, Asked], Iterable[tuple[Path, Row]]]
) -> Callable[[Atlas, Asked], Part]:
    """Reads a table that lies in several files, one behind the other, each with words that its rows have beside."""

    def make(atlas: Atlas, asked: Asked) -> Part:
        count, wanted = 0, asked.offset
        found: list[Row] = []
        for path, beside in files(atlas, asked):
            rows = atlas.queries.reading.rows(path, _columns(schema), keep=False)
            if rows is None:
                continue
            here = rows.slice(max(wanted - count, 0), asked.limit - len(found)) if wanted < count + len(rows) else None
            found += [row | beside for row in here.to_pylist()] if here is not None and len(found) < asked.limit else []
            count += len(rows)
        return Part(count, found)

    return make


def of_comparisons(atlas: Atlas, asked: Asked) -> Iterator[tuple[Path, Row]]:
    """The files of `matches/`, with the other run's name."""
    for name in atlas.others.matches.names():
        yield atlas.queries.run.path / "matches" / f"{name}.parquet", {"run": name}


def of_all_layers(table: str) -> Callable[[Atlas, Asked], Iterator[tuple[Path, Row]]]:
    """The files of a table of all layers, in their order."""
    return lambda atlas, asked: ((table_file(atlas.queries.run.path, table, name), {}) for name in atlas.queries.layers)


def of_its_layer(table: str) -> Callable[[Atlas, Asked], Iterator[tuple[Path, Row]]]:
    """The file of a table of the layer that is asked for."""
    return lambda atlas, asked: iter([(table_file(atlas.queries.run.path, table, asked.layer), {})])


def layers(atlas: Atlas, asked: Asked) -> list[Row]:
    """The layers, in the order in which the network runs them."""
    rows = [row for row in atlas.queries.table("layers.parquet") if row["layer"] in atlas.queries.layers]
    return [row | _to_layer(atlas, row["layer"]) for row in rows]


def _to_layer(atlas: Atlas, layer: str) -> Row:
    return {"page": atlas.links.layer(layer), "api": atlas.links.rows("layer", layer)}


def _to_unit(atlas: Atlas, layer: str, unit: int) -> Row:
    return {"page": atlas.links.unit(layer, unit), "api": atlas.links.rows("layer", layer, unit)}


def _to_image(atlas: Atlas, image_id: int) -> Row:
    return {"page": atlas.links.image(image_id), "api": atlas.links.rows("image", image_id)}


def units(atlas: Atlas, asked: Asked) -> Part:
    """A page of the units of a layer, sorted and chosen. Raises `NoWord` for a column that they cannot be sorted by."""
    units, label = atlas.queries.units(asked.layer), asked.words["label"]
    if (sort := asked.words["sort"]) not in (known := sorts_of(units)):
        raise NoWord(f"sort: units of {asked.layer} are sorted by one of {', '.join(known)}, not by {sort!r}.")
    order = units.order(sort, asked.words["reverse"])
    chosen = order[units.matching(label)[order]] if label else order
    numbers = units.unit[chosen[asked.offset : asked.offset + asked.limit]].tolist()
    path = table_file(atlas.queries.run.path, "units", asked.layer)
    columns = [each for each in _columns(UNITS) if not asked.columns or each in ("unit", *asked.columns)]
    rows = atlas.queries.reading.rows_of(path, columns, numbers) if numbers else None
    there = {} if rows is None else {row["unit"]: row for row in _chosen(rows, numbers)}
    return Part(len(chosen), [_unit_row(atlas, asked.layer, there[number]) for number in numbers])


def _chosen(rows: pa.Table, units: Collection[int]) -> list[Row]:
    return list(rows.filter(pa.array(np.isin(rows["unit"].to_numpy(), list(units)))).to_pylist())


def unit(atlas: Atlas, asked: Asked) -> Row | None:
    """A unit; None where the layer has no such number."""
    rows = atlas.queries.of_unit("units", asked.layer, asked.unit, _columns(UNITS))
    return _unit_row(atlas, asked.layer, rows[0]) if rows else None


def _unit_row(atlas: Atlas, layer: str, row: Row) -> Row:
    drawn = atlas.queries.tile(layer, row["unit"])
    picture = Picture(layer, row["unit"], "visualization") if drawn and drawn.drawn else None
    shown = atlas.links.picture(picture) if picture else None
    return row | {"layer": layer, "visualization": shown} | _to_unit(atlas, layer, row["unit"])


def rows_of_unit(
    name: str, schema: pa.Schema, files: Callable[[Atlas, str], list[str]] = lambda atlas, layer: [layer]
) -> Callable[[Atlas, Asked], list[Row] | None]:
    """Reads the rows that a unit has in a table, of one file a layer or of several `files`; None for no such unit."""

    def make(atlas: Atlas, asked: Asked) -> list[Row] | None:
        if asked.unit >= atlas.queries.layers[asked.layer].units:
            return None
        named = ((each, atlas.queries.of_unit(name, each, asked.unit, _columns(schema)))
                 for each in files(atlas, asked.layer))  # fmt: skip
        return [row | {"layer": asked.layer} | _shown(atlas, asked, name, row) for _, rows in named for row in rows]

    return make


def _shown(atlas: Atlas, asked: Asked, name: str, row: Row) -> Row:
    """The addresses of the pictures of a row, by the columns that have them."""

    def at(kind: str, *marks: object) -> str:
        return atlas.links.picture(Picture(asked.layer, row["unit"], kind, tuple(map(str, marks))))

    if name == "exemplars":
        seen = atlas.queries.pictured or row.get("crop") is not None
        return {"crop": at("crop", row["rank"]) if seen else None, "image": atlas.links.whole(row["image_id"])}
    if name == "maps":
        return {"heat": None if row.get("map_left") is None else at("heat", row["rank"])}
    if name == "views":
        return {"view": None if row["view"] is None else at("view", row["method"], row["rank"])}
    if name == "visualizations":
        facet = "none" if row["facet"] is None else row["facet"]
        return {"visualization": at("preset", row["preset"], facet)}
    return {"visualization": at("facet", row["preset"], row["facet"])} if name == "facets" else {}


def presets(atlas: Atlas, layer: str) -> list[str]:
    """The files of a layer's visualizations."""
    return [f"{layer}-{preset}" for preset in atlas.queries.run.record.get("visualizations", {})]


def methods(atlas: Atlas, layer: str) -> list[str]:
    """The files of a layer's views."""
    return [f"{layer}-{method}" for method in atlas.queries.run.record.get("views") or ()]


def neighbors(atlas: Atlas, asked: Asked) -> list[Row] | None:
    """The units of the run most alike; None for no such unit."""
    known = asked.unit < atlas.queries.layers[asked.layer].units
    return atlas.queries.neighbors(asked.layer, asked.unit) if known else None


def matches(atlas: Atlas, asked: Asked) -> list[Row] | None:
    """The units most alike in other runs; None for no such unit."""
    if asked.unit >= atlas.queries.layers[asked.layer].units:
        return None
    shown = (match.picture for match in atlas.others.matches.of(asked.layer, asked.unit))
    rows = zip(atlas.others.matches.rows(asked.layer, asked.unit), shown, strict=True)
    return [row | {"picture": atlas.links.picture(each) if each else None} for row, each in rows]


def image(atlas: Atlas, asked: Asked) -> Row | None:
    """An image; of one that no exemplar names what is known; None for one beyond the dataset."""
    path = atlas.queries.run.path / "images.parquet"
    rows = atlas.queries.reading.rows(path, _columns(IMAGES), asked.image)
    if rows is None or not rows.num_rows:
        unkept = atlas.queries.images.unkept(asked.image)
        if unkept is None:
            return None
        return {"image_id": asked.image, "key": unkept.key, "error": unkept.error} | _to_image(atlas, asked.image)
    return rows.to_pylist()[0] | {"image": atlas.links.whole(asked.image)} | _to_image(atlas, asked.image)


def topped(atlas: Atlas, asked: Asked) -> Part | None:
    """A page of the exemplars that are an image; None for one beyond the dataset."""
    if atlas.queries.images.get(asked.image) is None and atlas.queries.images.unkept(asked.image) is None:
        return None
    assert asked.topping is not None
    names, found = list(atlas.queries.layers), asked.topping().of(asked.image)
    shown = found[asked.offset : asked.offset + asked.limit]
    wanted: dict[int, set[int]] = {}
    for layer, unit, _ in shown:
        wanted.setdefault(layer, set()).add(unit)
    there: dict[tuple[int, int, int], Row] = {}
    for layer, units in wanted.items():
        path = table_file(atlas.queries.run.path, "exemplars", names[layer])
        rows = atlas.queries.reading.rows_of(path, _columns(EXEMPLARS), sorted(units))
        for row in [] if rows is None else _chosen(rows, units):
            there.setdefault((layer, row["unit"], row["rank"]), row | {"layer": names[layer]})
    kept = (there[place] for place in shown if place in there)
    rows_ = [row | _shown(atlas, Asked(row["layer"]), "exemplars", row) | _to_unit(atlas, row["layer"], row["unit"])
             for row in kept]  # fmt: skip
    return Part(len(found), rows_)


def found(atlas: Atlas, asked: Asked) -> Part:
    """A page of what a search found."""
    found = search(atlas.queries, asked.words["q"])
    of_labels = [(label, unit) for label, units in found.labels for unit in units]
    rows: list[Row] = [
        *({"kind": "layer", "layer": each.name} | _to_layer(atlas, each.name) for each in found.layers),
        *({"kind": kind, "layer": each.layer, "unit": each.unit, "label": label}
          | _to_unit(atlas, each.layer, each.unit)
          for kind, named in (("unit", [(None, unit) for unit in found.units]), ("label", of_labels))
          for label, each in named),
        *({"kind": "image", "image_id": each.image_id, "key": each.key, "label": each.label}
          | _to_image(atlas, each.image_id) for each in found.images),
    ]  # fmt: skip
    shown = rows[asked.offset : asked.offset + asked.limit]
    return Part(len(rows), shown, {"cut": found.cut, "near": list(found.near)})


def noted(atlas: Atlas, asked: Asked) -> list[Row]:
    """What is noted of what the run has, of that what is asked for."""
    words = asked.words
    wanted = words["q"].strip().casefold()
    rows = []
    for each in listed(atlas.queries, atlas.notes.all()):
        its, noted = each.target, each.noted
        of = (not words["layer"] or its.layer == words["layer"]) and words["unit"] in (None, its.unit)
        if of and words["image"] in (None, its.image_id) and wanted in noted.words.casefold():
            notes = [{"id": note.id, "at": note.at, "by": note.by, "text": note.text} for note in noted.notes]
            rows.append({
                "layer": its.layer, "unit": its.unit, "image_id": its.image_id, "star": noted.star, "name": noted.name,
                "tags": list(noted.tags), "notes": notes, "page": place_of(atlas.links, its),
            })  # fmt: skip
    return rows


def _columns(schema: pa.Schema) -> list[str]:
    """All; of pictures only whether there is one, and no bytes."""
    return [f"{each.name}.path" if each.type == IMAGE else each.name for each in schema
            if not pa.types.is_binary(each.type)]  # fmt: skip
