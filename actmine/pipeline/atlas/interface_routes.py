"""Addresses of the interface for programs, and what a request asks of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from importlib import metadata
from urllib.parse import quote, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from actmine.pipeline.atlas.answers import ANSWERS
from actmine.pipeline.atlas.bounds import Heavy
from actmine.pipeline.atlas.etags import knows
from actmine.pipeline.atlas.interface import Answer, Asked, NoWord, answered
from actmine.pipeline.atlas.interface_words import read
from actmine.pipeline.atlas.openapi import description
from actmine.pipeline.atlas.opened import Opened
from actmine.pipeline.atlas.request_words import base, refusal
from actmine.pipeline.errors import UserError

DESCRIPTION = "/api/openapi.json"
_SAID = description(ANSWERS, metadata.version("actmine"))
_MARK = hashlib.sha256(json.dumps(_SAID).encode()).hexdigest()[:8]
"""Tells answers of this version from those of another."""


def for_programs(current: Callable[[], Opened], heavy: Heavy) -> list[Route]:
    """The routes of all answers, of the run that is `current`, and of the document that describes them."""

    def route(answer: Answer) -> Route:
        def answer_to(request: Request) -> Response:
            return _answer(answer, current, request)

        path = answer.path.replace("{unit}", "{unit:number}").replace("{image}", "{image:number}")
        return Route(path, heavy(answer_to) if answer.heavy else answer_to)

    return [*map(route, ANSWERS), Route(DESCRIPTION, _description)]


def _answer(answer: Answer, current: Callable[[], Opened], request: Request) -> Response:
    try:
        opened = current().below(base(request.scope))
        asked = _asked(answer, opened, request)
        mark = _MARK if answer.shared else f"{_MARK}-{opened.notes.mark}"
        headers = {"Cache-Control": "no-cache", "ETag": (tag := f'W/"{opened.queries.version}-{mark}"')}
        if knows(request, tag, any_=False):
            return Response(status_code=304, headers=headers)
        found = answered(answer, opened.atlas, asked, lambda offset: _at(request, offset))
    except NoWord as error:
        return refusal(request.scope, 400, str(error))
    except UserError as error:
        return refusal(request.scope, 500, str(error))
    if found is None:
        raise HTTPException(404)
    return Response(status_code=304, headers=headers) if knows(request, tag) else JSONResponse(found, headers=headers)


def _asked(answer: Answer, opened: Opened, request: Request) -> Asked:
    """What an address asks for. Raises `NoWord` for a word that is none of its kind."""
    there = request.path_params
    layer = opened.names.get(there["layer"]) if "layer" in there else ""
    if layer is None:
        raise HTTPException(404)
    words = read(request.query_params, answer.all_words, [each.name for each in answer.columns])
    return Asked(layer, there.get("unit", 0), there.get("image", 0), words, opened.topping)


def _at(request: Request, offset: int) -> str:
    """The same address with the rows from `offset` on."""
    words = {name: text for name, text in request.query_params.items() if name != "offset"}
    return f"{quote(request.scope['path'])}?{urlencode(words | {'offset': offset})}"


def _description(request: Request) -> Response:
    here = base(request.scope)
    headers = {"Cache-Control": "no-cache", "ETag": f'W/"{_MARK}"'}
    if knows(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return JSONResponse(_SAID | {"servers": [{"url": here or "/"}]}, headers=headers)
