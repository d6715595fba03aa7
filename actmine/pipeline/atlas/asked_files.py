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
from actmine.pipeline.atlas.request_words import asked
from actmine.pipeline.atlas.take_away import FILES

_FOREVER = "private, max-age=31536000, immutable"
_STATIC_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
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
    """A picture, to be kept for good where its address names this state of the run."""
    version = opened.queries.version
    tag = f'"{version}"'
    forever = keep and request.query_params.get("v") == version
    headers = {"Cache-Control": _FOREVER if forever else "no-cache", "Content-Security-Policy": "default-src 'none'"}
    if keep:
        headers["ETag"] = tag
        if knows(request, tag):
            return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=_TYPES[kind_of(data)])
