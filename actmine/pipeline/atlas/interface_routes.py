"""Addresses of the interface for programs, and what a request asks of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from actmine.pipeline.atlas.interface import ANSWERS, MOST_ROWS, ROWS, Answer, Asked, NoWord, plain
from actmine.pipeline.atlas.openapi import description
from actmine.pipeline.atlas.pages import Atlas
from actmine.pipeline.atlas.request_words import asked, is_number
from actmine.pipeline.errors import UserError

Current = Callable[[], tuple[Atlas, Mapping[str, str]]]
"""Gives the run as it is now, and which layer has which address."""


def for_programs(current: Current) -> list[Route]:
    """The routes of all answers, and of the document that describes them."""
    said = description(ANSWERS, metadata.version("actmine"))

    def route(answer: Answer) -> Route:
        path = answer.path.replace("{unit}", "{unit:number}").replace("{image}", "{image:number}")
        return Route(path, lambda request: _answered(answer, current, request))

    return [*map(route, ANSWERS), Route("/api/openapi.json", lambda request: JSONResponse(said))]


def no_such(request: Request) -> Response:
    """What is said of an address at which there is nothing."""
    return JSONResponse({"error": f"The run has nothing at {request.url.path}"}, 404)


def _answered(answer: Answer, current: Current, request: Request) -> Response:
    try:
        atlas, names = current()
        tag = f'"{atlas.queries.version}-{atlas.notes.mark}"'
        headers = {"Cache-Control": "no-cache", "ETag": tag}
        if request.headers.get("if-none-match", "").removeprefix("W/") == tag:
            return Response(status_code=304, headers=headers)
        found = answer.make(atlas, _asked_for(names, request))
    except NoWord as error:
        return JSONResponse({"error": str(error)}, 400)
    except UserError as error:
        return JSONResponse({"error": str(error)}, 500)
    return no_such(request) if found is None else JSONResponse(plain(found), headers=headers)


def _asked_for(names: Mapping[str, str], request: Request) -> Asked:
    """What an address asks for. Raises `NoWord` for a word that is none of its kind."""
    there = request.path_params
    if "layer" in there and there["layer"] not in names:
        raise HTTPException(404)
    layer = names[there["layer"]] if "layer" in there else ""
    limit, offset = _number(request, "limit", ROWS), _number(request, "offset", 0)
    if not 1 <= limit <= MOST_ROWS:
        raise NoWord(f"limit is 1 to {MOST_ROWS:,}.")
    if (reverse := asked(request, "reverse") or "false") not in ("true", "false"):
        raise NoWord("reverse is true or false.")
    sort, label = asked(request, "sort") or "unit", asked(request, "label")
    return Asked(layer, there.get("unit", 0), there.get("image", 0), sort, reverse == "true", label, limit, offset)


def _number(request: Request, name: str, otherwise: int) -> int:
    if not is_number(text := request.query_params.get(name, f"{otherwise}")):
        raise NoWord(f"{name} is a number.")
    return int(text)
