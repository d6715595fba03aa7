"""Answers that are no pages: pictures of a run, files of its units to take away, files of the atlas itself."""

from __future__ import annotations

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from actmine.pipeline.atlas import pages
from actmine.pipeline.atlas.asked_pages import layer_of
from actmine.pipeline.atlas.bounds import Heavy
from actmine.pipeline.atlas.etags import knows, unless_known
from actmine.pipeline.atlas.links import SIDES, Picture, stamp
from actmine.pipeline.atlas.opened import Current, Opened
from actmine.pipeline.atlas.pictures import absence, fitted, kind_of, stored_picture
from actmine.pipeline.atlas.request_words import asked, base
from actmine.pipeline.atlas.take_away import FILES
from actmine.pipeline.words import MapOf

_FOREVER = "private, max-age=31536000, immutable"
_STATIC_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_MAP_TYPES = {"bin": "application/octet-stream", "png": "image/png"}
_TYPES = {"png": "image/png", "webp": "image/webp", "jpg": "image/jpeg", "svg": "image/svg+xml"}


def file_routes(current: Current, in_turn: Heavy) -> list[Route]:
    """The routes; files of units are made `in_turn`."""

    def picture(request: Request) -> Response:
        opened = current()
        kind, *marks = request.path_params["what"].split("/")
        wanted = Picture(layer_of(opened, request), request.path_params["unit"], kind, tuple(marks))
        data = stored_picture(opened.queries, wanted, opened.others)
        if data is None:
            raise HTTPException(404)
        side = asked(request, "side")
        return pictured(opened, request, fitted(data, int(side)) if side in map(str, SIDES) else data)

    def whole(request: Request) -> Response:
        opened = current()
        size = opened.queries.images.size(request.path_params["image"])
        if size is None:
            raise HTTPException(404)
        data = opened.wholes.of(request.path_params["image"])
        return pictured(opened, request, absence(size) if data is None else data, keep=data is not None)

    def map_file(request: Request) -> Response:
        opened, kind = current().below(base(request.scope)), request.path_params["kind"]
        by = request.path_params["by"]
        if by not in {*MapOf} or kind not in _MAP_TYPES:
            raise HTTPException(404)
        made = opened.maps.picture(MapOf(by)) if kind == "png" else opened.maps.data(MapOf(by), opened.atlas.links)
        if made is None:
            raise HTTPException(404)
        return versioned(opened, request, made, _MAP_TYPES[kind])

    def taken(request: Request) -> Response:
        opened, name = current(), request.path_params["name"]
        layer, unit = layer_of(opened, request), request.path_params["unit"]
        if name not in FILES or unit >= opened.queries.layers[layer].units:
            raise HTTPException(404)
        media, make = FILES[name]
        called = f"{request.path_params['layer']}-{unit}-{name}"
        headers = {
            "Cache-Control": "no-cache", "Content-Disposition": f'attachment; filename="{called}"',
            "Content-Security-Policy": "default-src 'none'",
        }  # fmt: skip
        return Response(make(opened.queries.run, layer, unit), headers=headers, media_type=media)

    return [
        Route("/take/{layer}/{unit:number}/{name}", in_turn(taken)),
        Route("/map/{by}.{kind}", map_file),
        Route("/picture/{layer}/{unit:number}/{what:path}", picture),
        Route("/whole/{image:number}", whole),
        Route("/static/{name}", static),
    ]


def static(request: Request) -> Response:
    """A file of the atlas itself. Raises `HTTPException` 404 for what is none."""
    name = request.path_params["name"]
    if name not in pages.STATIC:
        raise HTTPException(404)
    kind = _STATIC_TYPES[Path(name).suffix]
    answer = Response((pages.HERE / "static" / name).read_bytes(), media_type=kind)
    if request.query_params.get("v") == stamp(name):
        answer.headers["Cache-Control"] = _FOREVER
        return answer
    return unless_known(request, answer)


def pictured(opened: Opened, request: Request, data: bytes, keep: bool = True) -> Response:
    """A picture, see `versioned`."""
    return versioned(opened, request, data, _TYPES[kind_of(data)], keep)


def versioned(opened: Opened, request: Request, data: bytes, media: str, keep: bool = True) -> Response:
    """What is made of one state of the run, to be kept for good where its address names that."""
    version = opened.queries.version
    tag = f'"{version}"'
    forever = keep and request.query_params.get("v") == version
    headers = {"Cache-Control": _FOREVER if forever else "no-cache", "Content-Security-Policy": "default-src 'none'"}
    if keep:
        headers["ETag"] = tag
        if knows(request, tag):
            return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=media)
