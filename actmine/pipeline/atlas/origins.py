"""Which pages of other origins may read rows and pictures (CORS): none unless they were named."""

from __future__ import annotations

import re
from collections.abc import Collection, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from actmine.pipeline.atlas.answers import ANSWERS
from actmine.pipeline.atlas.hosts import name_of
from actmine.pipeline.atlas.request_words import by_program, place
from actmine.pipeline.errors import UserError

ALL = "*"
_USUAL = {"http": 80, "https": 443}
_ALONE = [re.compile(re.sub(r"{\w+}", "[^/]+", each.path)) for each in ANSWERS if not each.shared]
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD",
    "Access-Control-Allow-Headers": "Accept, Accept-Language, Content-Type, If-None-Match",
    "Access-Control-Max-Age": "600",
}


def origins(said: Sequence[str]) -> frozenset[str]:
    """Origins as browsers write them, of words with commas between them. Raises `UserError` for what is none."""
    found = {_origin(each.strip()) for words in said for each in words.split(",") if each.strip()}
    return frozenset(found)


def _origin(said: str) -> str:
    if said == ALL:
        return ALL
    try:
        parts = urlsplit(said)
        scheme, host, port = parts.scheme.lower(), parts.netloc.lower(), parts.port
    except ValueError:
        parts, scheme, host, port = urlsplit(""), "", "", None
    if scheme not in _USUAL or not name_of(host) or said.lower() not in (f"{scheme}://{host}", f"{scheme}://{host}/"):
        raise UserError(f"ALLOW_ORIGIN={said} is no origin. Say it as in https://lab.example or http://localhost:8888, "
                        "without a path, or * for all.")  # fmt: skip
    return f"{scheme}://{host.removesuffix(f':{port}')}" if port == _USUAL[scheme] else f"{scheme}://{host}"


def is_shared(scope: Scope) -> bool:
    """Whether what is asked for are rows or a picture; notes are for pages of the atlas alone."""
    where = place(scope)
    if by_program(scope):
        return not any(each.fullmatch(where.rstrip("/")) for each in _ALONE)
    return where.startswith(("/picture/", "/whole/"))


class Shared:
    """Lets pages of the `allowed` origins read rows and pictures, as the Fetch standard has it; without credentials."""

    def __init__(self, app: ASGIApp, allowed: Collection[str] = ()) -> None:
        self._app, self._allowed = app, frozenset(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as the app does, and says who may read it; answers what browsers ask beforehand (a preflight)."""
        if not self._allowed or scope["type"] != "http" or not is_shared(scope):
            return await self._app(scope, receive, send)
        said = Headers(scope=scope)
        told = self._told(said.get("origin", ""))
        before = scope["method"] == "OPTIONS" and "access-control-request-method" in said
        if before and told and said["access-control-request-method"] in ("GET", "HEAD"):
            here = {"Access-Control-Allow-Private-Network": "true"}
            near = here if said.get("access-control-request-private-network") == "true" else {}
            return await Response(status_code=204, headers=told | _PREFLIGHT | near | self._vary())(
                scope, receive, send
            )

        async def shared(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in told.items():
                    headers[name] = value
                if self._vary():
                    headers.add_vary_header("Origin")
            await send(message)

        await self._app(scope, receive, shared if scope["method"] in ("GET", "HEAD") else send)

    def _told(self, origin: str) -> dict[str, str]:
        """What tells a browser that pages of an origin may read an answer; nothing if they may not."""
        if ALL not in self._allowed and origin not in self._allowed:
            return {}
        allowed = ALL if ALL in self._allowed else origin
        return {"Access-Control-Allow-Origin": allowed, "Access-Control-Expose-Headers": "ETag, Retry-After"}

    def _vary(self) -> dict[str, str]:
        """That another origin gets another answer: also said where none was named, since caches keep that, too."""
        return {} if ALL in self._allowed else {"Vary": "Origin"}
