"""Keeps a browser from doing more with an answer of the atlas than to show it."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with "no-referrer" a browser says of its own forms that they come from nowhere
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guarded:
    """Adds to every answer what keeps a browser from doing more with it than to show it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as the app does, with the headers."""

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"], *((name.lower().encode(), value.encode()) for name, value in _HEADERS.items())
                ]  # fmt: skip
            await send(message)

        await self._app(scope, receive, guarded if scope["type"] == "http" else send)
