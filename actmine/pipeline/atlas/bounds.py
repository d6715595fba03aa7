"""How much may be asked of the atlas: lengths of requests, requests of a client, and heavy work at once."""

from __future__ import annotations

import functools
import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from actmine.pipeline.atlas.looking import MOST_BYTES
from actmine.pipeline.atlas.request_words import place, refusal

MOST_ADDRESS = 8192
"""Of an address with the words behind it (bytes)."""
MOST_BODY = 1 << 16
"""Of what is sent with a request (bytes)."""
MOST_HEAD = 1 << 15
"""Of what a request says before its body (bytes)."""
BURST, PER_SECOND = 5000, 100
"""Requests of one client that are answered at once, and how many more each second; a page may show 2,048 pictures."""
MOST_CLIENTS = 10_000
"""So many are remembered; those heard of longest ago are forgotten, and begin anew."""
AT_ONCE, WAITING = 2, 14
"""Searches that are made at once, or files of units, and requests that may wait for their turn."""


class Rate:
    """How often each client may ask: `burst` times at once, and `per_second` more. May be used by many threads."""

    def __init__(
        self, burst: float = BURST, per_second: float = PER_SECOND, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst, self._per_second, self._clock = burst, per_second, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait(self, client: str) -> float:
        """How long a client has to wait (seconds); at 0 it may ask, which is counted."""
        with self._lock:
            now = self._clock()
            left, then = self._left.pop(client, (self._burst, now))
            left = min(self._burst, left + (now - then) * self._per_second)
            may = left >= 1
            self._left[client] = (left - may, now)
            if len(self._left) > MOST_CLIENTS:
                self._left.popitem(last=False)
            return 0.0 if may else (1 - left) / self._per_second


class Bounded:
    """Refuses requests that are too long, and clients that ask too often; this machine may ask as often as it likes."""

    def __init__(self, app: ASGIApp, rate: Rate | None = None, looks: bool = False) -> None:
        self._app, self._rate, self._looks = app, rate or Rate(), looks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises nothing: answers 413, 414, 429 or 431 with a sentence."""
        refused = self._refused(scope) if scope["type"] == "http" else None
        await (refused or self._app)(scope, receive, send)

    def _refused(self, scope: Scope) -> Response | None:
        client = client_of(scope)
        if client and (seconds := self._rate.wait(client)):
            later = {"Retry-After": str(math.ceil(seconds))}
            return refusal(scope, 429, f"Too many requests: at most {PER_SECOND} a second for long.", later)
        if len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"]) > MOST_ADDRESS:
            return refusal(scope, 414, f"The address is longer than {MOST_ADDRESS:,} bytes.")
        if sum(len(name) + len(word) for name, word in scope["headers"]) > MOST_HEAD:
            return refusal(scope, 431, f"The headers of the request are longer than {MOST_HEAD:,} bytes.")
        length = Headers(scope=scope).get("content-length", "0")
        most = MOST_BYTES + MOST_BODY if self._looks and place(scope) == "/look" else MOST_BODY
        if not length.isdigit() or int(length[:19]) > most:
            return refusal(scope, 413, f"A request has at most {most:,} bytes.")
        return None


def client_of(scope: Scope) -> str:
    """Who asks: an address, of IPv6 the network that one has to oneself (/64); empty for this machine."""
    host = (scope.get("client") or ("",))[0]
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        return ""  # a Unix socket, or a test: no network leads here
    number = getattr(number, "ipv4_mapped", None) or number
    if number.is_loopback:
        return ""
    return str(number) if number.version == 4 else str(ipaddress.ip_network((number, 64), strict=False))


class Heavy:
    """Has only a few requests at once do what takes long: `at_once`, while `waiting` more may wait for their turn."""

    def __init__(self, at_once: int = AT_ONCE, waiting: int = WAITING) -> None:
        self._turn, self._most = threading.BoundedSemaphore(at_once), at_once + waiting
        self._there, self._lock = 0, threading.Lock()

    def __call__(self, make: Callable[[Request], Response]) -> Callable[[Request], Response]:
        """The same answer, made in turn. Raises `HTTPException` 503 where too many wait."""

        @functools.wraps(make)
        def in_turn(request: Request) -> Response:
            with self._lock:
                if self._there >= self._most:
                    raise HTTPException(503, "Too much is being done at once; try again.", {"Retry-After": "2"})
                self._there += 1
            try:
                with self._turn:
                    return make(request)
            finally:
                with self._lock:
                    self._there -= 1

        return in_turn
