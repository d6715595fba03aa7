"""Which page an address means: the words of a request are read, and the page is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from starlette.exceptions import HTTPException
from starlette.requests import Request

from actmine.pipeline.atlas import pages
from actmine.pipeline.atlas.cell_pages import CELL_PAGES
from actmine.pipeline.atlas.compare_pages import comparison_page, pair_page, training_page
from actmine.pipeline.atlas.links import Came, Choice
from actmine.pipeline.atlas.opened import Opened
from actmine.pipeline.atlas.request_words import asked, is_number

Make = Callable[[Opened, Request], "str | None"]
"""Makes a page of a run as a request asks for it; None where there is none. May raise `HTTPException`."""


def layer_of(opened: Opened, request: Request) -> str:
    """The layer that an address names. Raises `HTTPException` 404 where there is none."""
    name = opened.names.get(request.path_params["layer"])
    if name is None:
        raise HTTPException(404)
    return name


def page_of(request: Request) -> int:
    """Which of several pages is asked for, from 1; 0 for what is no number."""
    page = asked(request, "page") or "1"
    return int(page) if is_number(page) else 0


def _chosen(request: Request) -> Choice:
    return Choice(asked(request, "sort") or "unit", bool(asked(request, "reverse")), asked(request, "label"))


def _run(opened: Opened, request: Request) -> str:
    return pages.run_page(opened.atlas)


def _noted(opened: Opened, request: Request) -> str:
    return pages.noted_page(opened.atlas)


def _search(opened: Opened, request: Request) -> str:
    return pages.search_page(opened.atlas, asked(request, "q"))


def _layer(opened: Opened, request: Request) -> str | None:
    choice = replace(_chosen(request), page=page_of(request))
    return pages.layer_page(opened.atlas, layer_of(opened, request), choice)


def _unit(opened: Opened, request: Request) -> str | None:
    image = asked(request, "image")
    came = Came(
        _chosen(request), asked(request, "q"), asked(request, "under"), int(image) if is_number(image) else None
    )
    return pages.unit_page(opened.atlas, layer_of(opened, request), request.path_params["unit"], opened.topping, came)


def _image(opened: Opened, request: Request) -> str | None:
    at = [asked(request, name) for name in ("at", "x", "y")]
    return pages.image_page(opened.atlas, opened.topping(), request.path_params["image"], page_of(request), at)


def _comparison(opened: Opened, request: Request) -> str | None:
    layer = opened.names.get(asked(request, "layer"), asked(request, "layer"))
    name = request.path_params["name"]
    return comparison_page(opened.atlas, name, asked(request, "sort"), layer, page_of(request))


def _pair(opened: Opened, request: Request) -> str | None:
    layer, unit = layer_of(opened, request), request.path_params["unit"]
    return pair_page(opened.atlas, request.path_params["name"], layer, unit)


def _training(opened: Opened, request: Request) -> str | None:
    at = asked(request, "at")
    number = int(at) if is_number(at) else None
    return training_page(opened.atlas, number, asked(request, "lost") == "1", page_of(request))


PAGES: dict[str, Make] = {
    "/": _run,
    "/layer/{layer}": _layer,
    "/layer/{layer}/{unit:number}": _unit,
    "/image/{image:number}": _image,
    "/noted": _noted,
    "/compare/{name}": _comparison,
    "/compare/{name}/{layer}/{unit:number}": _pair,
    "/training": _training,
    **{f"/cells/{{layer}}{more}": make for more, make in CELL_PAGES.items()},
}
"""The pages of a run by their addresses."""
SEARCHES: dict[str, Make] = {"/search": _search}
"""Those that take long, and are made in turn."""
