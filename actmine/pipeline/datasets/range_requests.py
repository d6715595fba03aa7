"""What a request for a piece of a file comes to: the bytes, or in words why there are none; how long it may take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from actmine.pipeline.errors import UserError
from actmine.pipeline.spoken import install

CONNECT_SECONDS = 30.0
READ_SECONDS = 60.0
"""The longest silence of a server that has answered (seconds)."""
REQUEST_SECONDS = 600.0
"""The longest that one piece may take in all, however steadily it drips (seconds)."""
PARALLEL = 64
"""Most requests under way at once."""


class RemoteError(UserError):
    """A file elsewhere cannot be read: names it, says why and what to do."""


class Absent(RemoteError):
    """There is no such file."""


class Refused(RemoteError):
    """The server knows who asks, or does not, and gives nothing."""


class Changed(RemoteError):
    """A file is no longer the one that was read before."""


class Transient(Exception):
    """A failure that may pass: says why. `unreachable` where no server answered at all."""

    def __init__(self, why: str, wait: float = 0.0, fix: str = "", unreachable: bool = False) -> None:
        super().__init__(why)
        self.wait = wait  # what the server asked for (seconds)
        self.fix = fix
        self.unreachable = unreachable


@dataclass(frozen=True, slots=True)
class Piece:
    """The bytes that were asked for, of a file of `size` bytes; `version` is its strong ETag, or empty."""

    data: bytes
    size: int
    version: str


def public(address: str) -> str:
    """The address without password, query string and fragment: what may be shown and kept in tables. Paths stay."""
    if address.startswith("s3://") or "://" not in address:
        return address
    try:
        parts = urlsplit(address)
    except ValueError:
        raise RemoteError(f"{address} is no address that can be read.") from None
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def missing_packages(scheme: str) -> RemoteError:
    """What is said where the packages that read a kind of address are not installed."""
    return RemoteError(f"Reading {scheme}:// needs a few more packages: {install(scheme)}")


def total(headers: Mapping[str, str]) -> int:
    """The size of the whole file (bytes) by `Content-Range`; -1 where it does not say."""
    total = headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdigit() else -1


def check_span(headers: Mapping[str, str], begin: int, end: int, got: int, address: str) -> None:
    """Raises `Transient` where a piece is short, `RemoteError` where it is another or of a file without a size."""
    size = total(headers)
    if size < 0:
        raise RemoteError(f"{public(address)} cannot be read in pieces: its server does not tell its size.")
    if not headers["Content-Range"].removeprefix("bytes").strip().startswith(f"{begin}-"):
        raise RemoteError(
            f"{public(address)} cannot be read: its server answered with other bytes than were asked for."
        )
    wanted = min(end, size) - begin
    if got > wanted:
        raise RemoteError(f"{public(address)} cannot be read: its server sent more bytes than were asked for.")
    if got != wanted:
        raise Transient(f"the answer was cut short ({got:,} of {wanted:,} bytes)")


async def first_bytes(read: Callable[[int], Awaitable[bytes]], most: int) -> bytes:
    """What a server sends, up to one byte more than the `most` that were asked for: an answer may have no end."""
    parts: list[bytes] = []
    left = most + 1
    while left and (part := await read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def strong_tag(headers: Mapping[str, Any]) -> str:
    """The ETag, unless it is a weak one, which may stay while the bytes change and change while they stay."""
    tag = str(headers.get("ETag") or "")
    return "" if tag.startswith("W/") else tag.strip('"')


def file_name(address: str) -> str:
    """The last part of an address as a file would be called: `a b.tar` of `https://host/x/a%20b.tar?sig=1`."""
    last = public(address).rpartition("/")[2]
    return last if address.startswith("s3://") else unquote(last).replace("/", "_")
