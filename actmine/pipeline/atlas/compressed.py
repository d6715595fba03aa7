"""Sends text compressed to browsers that take it so: pages come in a tenth of the bytes."""

from __future__ import annotations

import gzip
from collections.abc import MutableMapping
from functools import lru_cache
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

_TEXT = ("text/html", "text/css", "text/javascript", "application/javascript", "application/json", "image/svg+xml")
_LEAST = 1000  # bytes; below, a header costs what is saved
_LEVEL = 6


class Compressed:
    """Compresses whole answers of text, in memory; pictures and files to take away go as they are."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as the app does, its text in gzip where the request accepts that."""
        if scope["type"] != "http" or not _accepted(Headers(scope=scope)):
            return await self._app(scope, receive, send)
        start: MutableMapping[str, Any] | None = None
        parts: list[bytes] = []

        async def compressing(message: MutableMapping[str, Any]) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                headers = Headers(raw=message["headers"])
                kind = headers.get("content-type", "").partition(";")[0]
                if kind in _TEXT and message["status"] == 200 and "content-encoding" not in headers:
                    start = message
                else:
                    await send(message)
            elif start is None:
                await send(message)
            else:
                parts.append(message.get("body", b""))
                if not message.get("more_body", False):
                    await _ended(start, b"".join(parts), send)

        await self._app(scope, receive, compressing)


async def _ended(start: MutableMapping[str, Any], body: bytes, send: Send) -> None:
    headers = MutableHeaders(raw=list(start["headers"]))
    headers.add_vary_header("Accept-Encoding")
    if len(body) >= _LEAST:
        body = _squeezed(body)
        headers["Content-Encoding"], headers["Content-Length"] = "gzip", str(len(body))
        if "etag" in headers and not headers["etag"].startswith("W/"):
            headers["ETag"] = f"W/{headers['etag']}"  # other bytes of the same
    await send({**start, "headers": headers.raw})
    await send({"type": "http.response.body", "body": body})


@lru_cache(64)
def _squeezed(body: bytes) -> bytes:
    return gzip.compress(body, _LEVEL, mtime=0)


def _accepted(headers: Headers) -> bool:
    """Whether a request takes gzip: by name, and not with a weight of 0 (RFC 9110, 12.5.3)."""
    for each in headers.get("accept-encoding", "").lower().split(","):
        name, _, weight = each.strip().partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
