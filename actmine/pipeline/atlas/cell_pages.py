"""Pages of activation atlases: the map of a layer at a level, and one cell of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from actmine.pipeline.atlas.cells import Tile, cell, first_level, levels, mapped
from actmine.pipeline.atlas.opened import Opened
from actmine.pipeline.atlas.pages import Atlas, rendered

if TYPE_CHECKING:
    from starlette.requests import Request


def cells_page(atlas: Atlas, layer: str, level: int | None = None) -> str | None:
    """The map of a layer, at a level or the one that is shown first; None where there is none."""
    of = levels(atlas.queries, layer)
    at = first_level(of) if level is None else next((at for at, each in enumerate(of) if each.number == level), -1)
    if not 0 <= at < len(of):
        return None
    return rendered(
        atlas, "cells.html", json=atlas.links.rows("layer", layer, "cells"),
        layer=atlas.queries.layers[layer], levels=of, shown=of[at],
        about=mapped(atlas.queries)[layer], named=sum(bool(tile.label) for tile in of[at].tiles),
        labelled=atlas.queries.images.labelled,
    )  # fmt: skip


def cell_page(atlas: Atlas, tile: Tile) -> str | None:
    """One cell of a map; None where it has gone."""
    return _cell_page(atlas, tile.layer, tile.level, tile.place)


def _cell_page(atlas: Atlas, layer: str, level: int, place: int) -> str | None:
    found = cell(atlas.queries, layer, level, place)
    if found is None:
        return None
    order = next(each.tiles for each in levels(atlas.queries, layer) if each.number == level)
    at = order.index(found.tile)
    return rendered(
        atlas, "cell.html", json=atlas.links.rows("layer", layer, "cells"),
        layer=atlas.queries.layers[layer], cell=found, tile=found.tile, row=found.about,
        about=mapped(atlas.queries)[layer], before=order[at - 1] if at else None,
        after=order[at + 1] if at + 1 < len(order) else None, labelled=atlas.queries.images.labelled,
        there={each.image_id for each in found.images if each.kept or atlas.wholes.there(each.image_id)},
    )  # fmt: skip


def _asked(request: Request, opened: Opened) -> tuple[str, dict[str, Any]]:
    """The layer that an address names (empty for none), and the numbers in it."""
    words = dict(request.path_params)
    return opened.names.get(words.pop("layer"), ""), words


def _map(opened: Opened, request: Request) -> str | None:
    layer, numbers = _asked(request, opened)
    return cells_page(opened.atlas, layer, numbers.get("level")) if layer else None


def _one(opened: Opened, request: Request) -> str | None:
    layer, numbers = _asked(request, opened)
    return _cell_page(opened.atlas, layer, numbers["level"], numbers["place"]) if layer else None


CELL_PAGES: Mapping[str, Callable[[Opened, Request], str | None]] = MappingProxyType(
    {"": _map, "/{level:number}": _map, "/{level:number}/{place:number}": _one}
)
"""What is shown behind the address of a layer's map."""
