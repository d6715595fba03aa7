"""Keeps a browser from doing more with an answer of the atlas than to show it."""

from __future__ import annotations

from collections.abc import Collection, MutableMapping, Sequence
from typing import Any

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from actmine.pipeline.atlas.bounds import Bounded, Rate
from actmine.pipeline.atlas.compressed import Compressed
from actmine.pipeline.atlas.hosts import Called
from actmine.pipeline.atlas.origins import Shared
from actmine.pipeline.atlas.request_words import refusal

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
        """Answers as the app does, with the headers; raises what it raises, behind an answer that says so."""
        begun = False

        async def guarded(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [
                    *message["headers"], *((name.lower().encode(), value.encode()) for name, value in _HEADERS.items())
                ]  # fmt: skip
            await send(message)

        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            await self._app(scope, receive, guarded)
        except Exception:
            if not begun:
                sentence = "The atlas could not answer; its terminal says why."
                await refusal(scope, 500, sentence)(scope, receive, guarded)
            raise


def around(names: Collection[str], open: bool, origins: Collection[str], looks: bool = False) -> list[Middleware]:
    """What stands around the atlas, the outermost first: it is called by `names`, and shared with `origins`.

    Pictures may be sent where it `looks` at them.
    """
    return [
        Middleware(Guarded), Middleware(Called, names=names, open=open), Middleware(Shared, allowed=origins),
        Middleware(Bounded, rate=Rate(), looks=looks), Middleware(Compressed),
    ]  # fmt: skip


def guarded_by(guards: Sequence[Middleware], app: ASGIApp) -> ASGIApp:
    """An app within guards."""
    for each in reversed(guards):
        app = each.cls(app, *each.args, **each.kwargs)
    return app
