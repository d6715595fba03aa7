"""Pages of the atlas from a run's records; the same for the server and the export."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from actmine.pipeline.atlas import layer_pages
from actmine.pipeline.atlas.cells import mapped
from actmine.pipeline.atlas.desk import Desk, listed, place_of, tags_of, units_with
from actmine.pipeline.atlas.elsewhere import compared_with
from actmine.pipeline.atlas.extent import EVERYTHING, Extent
from actmine.pipeline.atlas.images import Topping
from actmine.pipeline.atlas.links import FROM_ANYWHERE, Came, Choice, Links, Picture
from actmine.pipeline.atlas.looking import MOST_BYTES, Looking
from actmine.pipeline.atlas.maps import Maps, labels_on, layers_on, noted_on
from actmine.pipeline.atlas.others import Others
from actmine.pipeline.atlas.pictures import Wholes, inlined, stored_picture
from actmine.pipeline.atlas.places import place_said, units_at, with_heat
from actmine.pipeline.atlas.queries import Queries
from actmine.pipeline.atlas.records import Exemplar
from actmine.pipeline.atlas.rendering import HERE, STATIC, environment
from actmine.pipeline.atlas.rows import rows_of
from actmine.pipeline.atlas.search import search
from actmine.pipeline.atlas.short_names import shortened
from actmine.pipeline.atlas.ways import steps
from actmine.pipeline.checked_record import total_seconds
from actmine.pipeline.naming import verdict
from actmine.pipeline.notes import NOTHING, Noted, Notes, Target
from actmine.pipeline.readings.statistics_options import TOP
from actmine.pipeline.sheets import charts
from actmine.pipeline.unit_maps import is_fresh, truth
from actmine.pipeline.words import MapOf

__all__ = [
    "HERE",
    "STATIC",
    "Atlas",
    "image_page",
    "layer_page",
    "map_page",
    "prepare",
    "run_page",
    "search_page",
    "unit_page",
]

UNITS_A_PAGE = 60
"""How many units a page of an image lists."""
_STRIP = 12


@dataclass(frozen=True, slots=True)
class Atlas:
    """What pages are made from."""

    queries: Queries
    wholes: Wholes
    others: Others
    links: Links
    notes: Notes
    exported: bool = False
    desk: Desk | None = None
    """Where notes are taken; None where they are only shown."""
    extent: Extent = EVERYTHING
    looking: Looking | None = None
    """Who shows pictures to the network; None where nobody does."""


def run_page(atlas: Atlas) -> str:
    """The run: what was mined, from what, and its layers."""
    queries = atlas.queries
    record = queries.run.record
    size = record.get("preprocessing", {}).get("size") or [0, 0]
    layers = [(layer, queries.units(name).standing_for(_STRIP)) for name, layer in queries.layers.items()]
    return rendered(atlas, "run.html", record=record, layers=layers, input=size, verdict=_verdict(atlas),
                   json=atlas.links.rows("run"),
                   seconds=total_seconds(record),
                   finished=queries.finished, units=sum(layer.units for layer, _ in layers),
                   compared=compared_with(record), training=atlas.others.training.names,
                   skipped=queries.table("skipped.parquet")[:50], of_run=len(queries.run.layers))  # fmt: skip


def _verdict(atlas: Atlas) -> str:
    """What is said of a run whose labels are good for nothing."""
    record = atlas.queries.run.record
    return verdict(record.get("labels_account"), record.get("units", 0)) if atlas.queries.images.labelled else ""


def layer_page(atlas: Atlas, layer: str, choice: Choice) -> str | None:
    """A layer: its units as a grid; None for a page beyond the last."""
    units = atlas.queries.units(layer)
    shown = layer_pages.shown(units, choice, units_with(atlas.notes.all(), layer, choice.label))
    if shown is None:
        return None
    names = list(atlas.queries.layers)
    at = names.index(layer)
    wide = layer_pages.wide(len(units))

    def turned(page: int) -> str:
        return atlas.links.layer(layer, replace(shown.choice, page=page))

    return rendered(
        atlas, "layer.html", layer=atlas.queries.layers[layer], shown=shown, choice=shown.choice,
        sorts=layer_pages.sorts_of(units), carried=("unit",) if wide else layer_pages.sorts_of(units), total=len(units),
        place=at, names=names, drawn=bool(units.drawn.any()), wide=wide, turned=turned, as_chosen=Choice,
        near=layer_pages.near(shown.choice.page, shown.pages),
        before=names[at - 1] if at else "", after=names[at + 1] if at + 1 < len(names) else "",
        json=_rows_of(atlas, layer, shown, wide),
    )  # fmt: skip


def _rows_of(atlas: Atlas, layer: str, shown: layer_pages.Shown, wide: bool) -> str:
    """Where programs have what a layer's page shows."""
    choice = shown.choice
    words = {"sort": choice.sort, "reverse": "true" if choice.reverse else "", "label": choice.label}
    paged = {"limit": layer_pages.UNITS_A_PAGE, "offset": shown.first} if wide else {}
    return atlas.links.rows("layer", layer, **words, **paged)


def unit_page(
    atlas: Atlas, layer: str, unit: int, topping: Callable[[], Topping], came: Came = FROM_ANYWHERE
) -> str | None:
    """A unit, and the next ones in the list that one `came` from; None where there is none of that number."""
    queries = atlas.queries
    page = queries.page(layer, unit)
    if page is None:
        return None
    fired = tuple(each for each in page.top if each.activation > 0 or each.band != TOP)
    firing, silent = fired[: atlas.extent.cut(len(fired))], page.top[len(fired) : atlas.extent.cut(len(page.top))]
    chart = charts.distribution(
        page.counts, page.unit.minimum, page.unit.maximum, [each.activation for each in page.top], page.quantiles
    )
    shown = firing[0] if firing else None
    matches = atlas.others.matches.of(layer, unit)
    return rendered(
        atlas, "unit.html", layer=queries.layers[layer], page=page, unit=page.unit, firing=firing, fired=len(fired),
        rows=rows_of(page, firing, silent, queries.end, atlas.extent), end=queries.end, chart=chart, size=charts,
        quantiles=charts.said(page.quantiles), alike=alike(firing),
        steps=steps(queries, layer, unit, came, topping), sorts=layer_pages.SORTS,
        moments=atlas.others.training.of(layer, unit), shown=shown,
        there=bool(shown and atlas.wholes.there(shown.image_id)),
        viewed=[each for each in firing if each.views], matches=matches,
        others=shortened({*queries.layers, *(each.layer for each in matches)}),
        seen=queries.run.record.get("counts", {}).get("seen"),
        labelled=queries.images.labelled,
        json=atlas.links.rows("layer", layer, unit),
    )  # fmt: skip


def alike(exemplars: Sequence[Exemplar]) -> list[list[Exemplar]]:
    """The exemplars by the facet they belong to, best first; nothing where there are not several."""
    found: dict[int, list[Exemplar]] = {}
    for each in exemplars:
        if each.facet is not None:
            found.setdefault(each.facet, []).append(each)
    return [found[facet] for facet in sorted(found)] if len(found) > 1 else []


def image_page(atlas: Atlas, topping: Topping, image_id: int, page: int = 1, at: Sequence[str] = ()) -> str | None:
    """An image and the units that it tops, if any; None for one beyond the dataset, or a page beyond the last.

    `at`, x, y and both as an address says them, asks which of them fire at a place.
    """
    queries = atlas.queries
    image = queries.images.get(image_id)
    if image is None:
        unkept = queries.images.unkept(image_id) if page == 1 else None
        json = atlas.links.rows("image", image_id)
        return rendered(atlas, "unkept.html", json=json, image=unkept) if unkept else None
    found = topping.of(image_id)
    pages = pages_of(topping, image_id)
    if not 1 <= page <= pages:
        return None
    tops = _tops(atlas, found[(page - 1) * UNITS_A_PAGE : page * UNITS_A_PAGE])
    place = place_said(image.size, *at) if at else None
    there = units_at(queries, found, *place) if place and queries.true_boxes else None
    heats = with_heat(queries, [*tops, *(each.exemplar for each in there.firing)] if there else tops)
    return rendered(
        atlas, "image.html", image=image, tops=[replace(top, key=image.key, label=image.label) for top in tops],
        count=len(found), page=page, pages=pages, there=atlas.wholes.readable(image_id),
        first=(page - 1) * UNITS_A_PAGE, place=there, heats=heats, json=atlas.links.rows("image", image_id),
    )  # fmt: skip


def _tops(atlas: Atlas, found: Sequence[tuple[int, int, int]]) -> list[Exemplar]:
    """The exemplars by layer, unit and rank, in their order; each layer's table is read once."""
    names = list(atlas.queries.layers)
    wanted: dict[int, set[tuple[int, int]]] = {}
    for layer, unit, rank in found:
        wanted.setdefault(layer, set()).add((unit, rank))
    there = {layer: atlas.queries.seen_at(names[layer], of_layer) for layer, of_layer in wanted.items()}
    return [there[layer][unit, rank] for layer, unit, rank in found if (unit, rank) in there[layer]]


def pages_of(topping: Topping, image_id: int) -> int:
    """How many pages an image has."""
    return max(1, -(-len(topping.of(image_id)) // UNITS_A_PAGE))


def search_page(atlas: Atlas, text: str) -> str:
    """What a search found; the exported page searches by itself."""
    wanted = text.strip().casefold()
    rows = listed(atlas.queries, atlas.notes.all()) if wanted else []
    return rendered(
        atlas, "search.html", found=search(atlas.queries, text), example=next(iter(atlas.queries.layers), "layer"),
        of_notes=[each for each in rows if wanted in each.noted.words.casefold()],
        json=atlas.links.rows("search", q=text.strip()),
    )  # fmt: skip


def map_page(atlas: Atlas, maps: Maps, by: str) -> str | None:
    """The map of units, or of images; None where there is none."""
    points = maps.points(MapOf(by)) if by in {*MapOf} else None
    if points is None:
        return None
    return rendered(
        atlas, "map.html", json=atlas.links.rows("map", by),
        points=points, ways=points.ways, truth=truth(points.about, by), layers=layers_on(points),
        labels=labels_on(points), marked=noted_on(points, atlas.notes.all()),
    )  # fmt: skip


def noted_page(atlas: Atlas) -> str:
    """All that is noted: what has a star, what has which tag, names, and notes."""
    rows = listed(atlas.queries, atlas.notes.all())
    return rendered(
        atlas, "noted.html", rows=rows, tags=tags_of(rows), starred=[each for each in rows if each.noted.star],
        named=[each for each in rows if each.noted.name], written=[each for each in rows if each.noted.notes],
        damaged=atlas.notes.damaged,
        json=atlas.links.rows("notes"),
    )  # fmt: skip


def trouble_page(atlas: Atlas, title: str, sentence: str) -> str:
    """A page that says why there is no other."""
    return rendered(atlas, "trouble.html", title=title, sentence=sentence)


def rendered(atlas: Atlas, template: str, **words: Any) -> str:
    """A page made of a template and its `words`, and of what all pages know."""
    record = atlas.queries.run.record
    name = f"{record.get('model', 'network')} on {record.get('dataset', 'dataset')}"
    known = atlas.notes.all()

    def noted(layer: str | None = None, unit: int | None = None, image_id: int | None = None) -> Noted:
        return known.get(Target(layer, unit, image_id), NOTHING)

    def warm(picture: Picture) -> str:
        data = None if atlas.exported else stored_picture(atlas.queries, picture)
        return atlas.links.picture(picture) if data is None else inlined(data)

    return environment().get_template(template).render(
        warm=warm, links=atlas.links, as_came=Came, extent=atlas.extent, shown_of=atlas.extent.cut,
        crisp=atlas.queries.crisp,
        short=atlas.queries.short, run_name=name, exported=atlas.exported, boxes=atlas.queries.true_boxes, noted=noted,
        maps=[by for by in MapOf if is_fresh(record, by)],
        mapped=mapped(atlas.queries),
        desk=atlas.desk, any_noted=bool(known), look_token=atlas.looking.token if atlas.looking else "",
        most_bytes=MOST_BYTES, segment_of=atlas.queries.segments.__getitem__,
        place_of=lambda target: place_of(atlas.links, target), **words
    )  # fmt: skip


def prepare(atlas: Atlas) -> None:
    """Does beforehand what every page needs, so that the first one does not wait for it."""
    for name in environment().list_templates():
        environment().get_template(name)
    len(atlas.queries.images)
