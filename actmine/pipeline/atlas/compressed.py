"""Compresses pages and rows on their way; pictures are compressed as they are."""

from __future__ import annotations

from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from actmine.pipeline.atlas.request_words import place

LEAST_BYTES = 1000
"""Below it gzip saves nothing, since that fits one packet."""
_AS_THEY_ARE = ("/picture/", "/whole/", "/take/")


class Compressed:
    """Sends answers with gzip to whoever takes it, but pictures and files."""

    def __init__(self, app: ASGIApp) -> None:
        self._app, self._gzip = app, GZipMiddleware(app, LEAST_BYTES, compresslevel=5)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as the app does."""
        as_it_is = scope["type"] != "http" or place(scope).startswith(_AS_THEY_ARE)
        await (self._app if as_it_is else self._gzip)(scope, receive, send)
