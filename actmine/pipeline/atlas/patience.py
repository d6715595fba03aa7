"""How the atlas's server waits: not for ever for clients that are slow to ask or to take, nor for too many of them."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from actmine.pipeline.atlas.bounds import MOST_HEAD

ASKING, TAKING = 20.0, 60.0
"""How long a client may take to ask, from its connection or its last answer on; and to take a part of an answer (s)."""
IDLE = 5
"""How long a connection stays open that is not used (seconds)."""
MOST_CONNECTIONS = 512


class Patient(H11Protocol):
    """A connection that is ended where a request does not come to its end, or an answer is not taken."""

    def __init__(self, *words: Any, **more: Any) -> None:
        super().__init__(*words, **more)
        self._asking: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for a request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Waits no longer where the request is there; a part of one gives no more time."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Begins to wait for the next one."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits for nothing any more."""
        super().connection_lost(exc)
        self._asking = self._taking = _ended(self._asking, self._taking)

    def pause_writing(self) -> None:
        """Begins to wait for an answer to be taken."""
        super().pause_writing()
        if self._taking is None:
            self._taking = self.loop.call_later(TAKING, self.transport.abort)

    def resume_writing(self) -> None:
        """Waits no longer."""
        super().resume_writing()
        self._taking = _ended(self._taking)

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._asking = _ended(self._asking)
        elif self._asking is None:
            self._asking = self.loop.call_later(ASKING, self.transport.abort)


def _ended(*timers: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Ends timers; what is left of them is nothing."""
    for each in timers:
        if each is not None:
            each.cancel()
    return None


def server(app: ASGIApp) -> uvicorn.Server:
    """A server of an app that says nothing but errors."""
    return uvicorn.Server(uvicorn.Config(
        app, http=Patient, ws="none", log_level="error", access_log=False, lifespan="off", server_header=False,
        timeout_graceful_shutdown=1, timeout_keep_alive=IDLE, limit_concurrency=MOST_CONNECTIONS,
        h11_max_incomplete_event_size=MOST_HEAD,
    ))  # fmt: skip
