"""Where the atlas listens, and by which names it may be called: no foreign page may reach it by a name of its own."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from actmine.pipeline.atlas.request_words import refusal
from actmine.pipeline.errors import UserError

LOOPBACK = "127.0.0.1"
PORT = 8420
PORTS_TRIED = 50
OWN = frozenset((LOOPBACK, "localhost", "::1"))
"""By these names a machine calls itself alone."""
_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9._-]{0,251}[a-z0-9_])?\.?")
_SAID = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::[0-9]{0,5})?")


class Called:
    """Answers none but requests to one of `names`; to an address as a number as well where others may ask (`open`).

    So no page of the web can have a browser read the atlas under a name that it has made point here (DNS rebinding). A
    number can be made to point nowhere.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str], open: bool = False) -> None:
        self._app, self._names, self._open = app, frozenset(names), open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises nothing: to what is not for us the answer is 400, and how to be called so."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        name = name_of(Headers(scope=scope).get("host", ""))
        if name in self._names or (self._open and name and _number(name)):
            return await self._app(scope, receive, send)
        so = f"the name {name}. Start it with --allow-host {name}" if name else "this"
        await refusal(scope, 400, f"The atlas does not answer to {so}.")(scope, receive, send)


def name_of(host: str) -> str:
    """The name in a Host header, without its port and in small letters; empty where it is none."""
    found = _SAID.fullmatch(host.strip().lower())
    if not found:
        return ""
    if found[1]:
        return found[1] if _number(found[1]) else ""
    return found[2].removesuffix(".") if _NAME.fullmatch(found[2]) else ""


def names(host: str, allowed: Sequence[str], alone: bool) -> frozenset[str]:
    """By which names an atlas at `host` may be called: the machine's own, and each of `allowed`, commas between them.

    One that this machine has for others is among them unless it listens to itself `alone`. Raises `UserError` for what
    is no name.
    """
    found = {*OWN, host.lower()}
    if not alone:
        machine = socket.gethostname().lower()
        found |= {machine, machine.split(".")[0]}
    for said in (each.strip() for words in allowed for each in words.split(",")):
        name = name_of(said)
        if said and not name:
            raise UserError(f"ALLOW_HOST={said} is not the name of a host. Say it as in node17.cluster, without "
                            "http:// and without patterns.")  # fmt: skip
        found |= {name} - {""}
    return frozenset(found)


def is_alone(there: socket.socket) -> bool:
    """Whether only this machine reaches what listens there."""
    return ipaddress.ip_address(there.getsockname()[0]).is_loopback


def listening(port: int | None = None, host: str = LOOPBACK) -> socket.socket:
    """A socket at an address of this machine and at `port`; 0 is any, None is `PORT` or the next one that is free.

    Raises `UserError` where the port is taken, or none of the next is free, and where `host` is no address of ours.
    """
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise UserError(f"HOST={host} is no address of this machine, and no name of one.") from error
    for number in range(PORT, PORT + PORTS_TRIED) if port is None else (port,):
        there = socket.socket(
            family, kind, socket.IPPROTO_TCP
        )  # asyncio asks before it turns Nagle's delay (40 ms) off
        there.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            there.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # `::` is every address, also the old ones
        try:
            there.bind((place[0], number, *place[2:]))
            there.listen(128)
        except PermissionError as error:
            there.close()
            raise UserError(f"Port {number} is not for you to take. Say another PORT, above 1023.") from error
        except OSError as error:
            there.close()
            if error.errno != errno.EADDRINUSE:
                raise UserError(f"HOST={host} cannot be listened on ({error.strerror}).") from error
            continue
        return there
    if port is None:
        raise UserError(f"No port from {PORT} to {PORT + PORTS_TRIED - 1} is free. Say another PORT.")
    raise UserError(f"Port {port} is taken. Say another PORT, or none for the next that is free.")


def address(host: str, there: socket.socket) -> str:
    """What to open in a browser: at all addresses, the machine by its name."""
    everywhere = _number(host) and ipaddress.ip_address(host).is_unspecified
    name = socket.gethostname() if everywhere else host
    return f"http://{f'[{name}]' if ':' in name else name}:{there.getsockname()[1]}"


def _number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
