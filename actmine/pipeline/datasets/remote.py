"""Files over https, http and s3: asked for in parallel, read in pieces or as a stream; retried, never mixed up."""

from __future__ import annotations

import asyncio
import io
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import fsspec.asyn

from actmine.pipeline.datasets import range_requests
from actmine.pipeline.datasets.http_requests import ask_http
from actmine.pipeline.datasets.range_requests import Absent, Changed, Piece, Refused, RemoteError, Transient, public
from actmine.pipeline.datasets.s3_requests import Listing, ask_s3, list_objects

T = TypeVar("T")

SCHEMES = ("https", "http", "s3")
ATTEMPTS = 8
"""How often a request is made before it has failed; with the waits between, about a minute."""
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
BLOCK_BYTES = 8 << 20
"""Length of a request of a stream (bytes)."""
BLOCKS_AHEAD = 3
"""How many of them a stream has under way or waiting."""

_addresses: dict[str, str] = {}
_answered: set[str] = set()


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file elsewhere: `url` may be shown, `address` may hold a password or signature and never is.

    `size` (bytes, -1 unknown) and `version` (its ETag, or empty) are what later requests have to find again.
    """

    url: str
    address: str = field(repr=False)
    size: int = -1
    version: str = ""


def is_remote(word: str) -> bool:
    """Whether a word is an address that can be read."""
    return word.partition("://")[0].lower() in SCHEMES and "://" in word


def remote_file(word: str) -> RemoteFile:
    """The file at an address, not yet asked for; a shown URL finds again the address it had in this process."""
    scheme, _, rest = word.partition("://")
    address = f"{scheme.lower()}://{rest}"
    url = public(address)
    if address != url:
        _addresses[url] = address
    return RemoteFile(url, _addresses.get(url, address))


def look_up(words: Iterable[str], advance: Callable[[int], None] = lambda count: None) -> list[RemoteFile | None]:
    """Size and version of every file, asked in parallel; None for one that does not exist.

    `advance` is called with 1 for each. Raises `RemoteError` for one that cannot be read.
    """
    return list(_in_parallel([partial(_look_up, remote_file(word)) for word in words], advance))


def look_beside(
    files: Iterable[RemoteFile], advance: Callable[[int], None] = lambda count: None
) -> list[RemoteFile | None]:
    """As `look_up`, for files that need not exist: one that is refused counts as absent."""
    return list(_in_parallel([partial(_look_up, file, refused_is_absent=True) for file in files], advance))


def list_below(prefix: str, delimiter: str = "", most: int = 0) -> list[RemoteFile]:
    """The objects of s3 whose URL begins with `prefix`, by key; with `delimiter` only up to the next one.

    With `most`, no further page is asked for once there are as many. Raises `RemoteError`.
    """
    return _wait(_submit(_list(prefix, delimiter, most)))


def read_range(file: RemoteFile, begin: int, end: int) -> bytes:
    """The bytes `begin:end` of a file; fewer where it ends before. Raises `RemoteError`."""
    return _wait(_submit(_read(file, begin, end))).data if begin < end else b""


def read_whole(file: RemoteFile, most: int) -> bytes:
    """A small file, of up to `most` bytes. Raises `RemoteError`."""
    with open_stream(file) as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise RemoteError(f"{file.url} cannot be read: it has more than {most:,} bytes.")
    return data


def open_stream(file: RemoteFile) -> io.BufferedReader:
    """A file from front to back, the next blocks fetched ahead. Raises `RemoteError` here and when it is read."""
    if file.size < 0:
        found = _wait(_submit(_look_up(file)))
        if found is None:
            raise Absent(f"{file.url} cannot be read: there is no such file. Check DATASET, or put it back.")
        file = found
    return io.BufferedReader(_Stream(file), 1 << 20)


class _Stream(io.RawIOBase):
    """The blocks of a file in turn; closing it drops what is under way."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._asked = 0  # bytes that have been asked for
        self._coming: deque[Future[Piece]] = deque()
        self._block = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """As `io.RawIOBase` has it."""
        if not self._block:
            self._ask_ahead()
            if not self._coming:
                return 0
            self._block = memoryview(_wait(self._coming.popleft()).data)
            self._ask_ahead()
        count = min(len(buffer), len(self._block))
        buffer[:count] = self._block[:count]
        self._block = self._block[count:]
        return count

    def close(self) -> None:
        """Drops what is under way."""
        for future in self._coming:
            future.cancel()
        self._coming.clear()
        super().close()

    def _ask_ahead(self) -> None:
        while len(self._coming) < BLOCKS_AHEAD and self._asked < self._file.size:
            end = min(self._asked + BLOCK_BYTES, self._file.size)
            self._coming.append(_submit(_read(self._file, self._asked, end)))
            self._asked = end


async def _look_up(file: RemoteFile, refused_is_absent: bool = False) -> RemoteFile | None:
    try:
        piece = await _read(file, 0, 1)
    except Absent:
        return None
    except Refused:
        if refused_is_absent:
            return None
        raise
    return RemoteFile(file.url, file.address, piece.size, piece.version)


async def _read(file: RemoteFile, begin: int, end: int) -> Piece:
    ask = ask_s3 if file.address.startswith("s3://") else ask_http
    piece = await _retried(partial(ask, file.address, begin, end), file.address)
    for name, before, now in (("size", file.size, piece.size), ("ETag", file.version, piece.version)):
        if before not in (-1, "") and now != "" and before != now:
            raise Changed(
                f"{file.url} has changed while it was in use: its {name} was {before}, now {now}. "
                "Restore it, or start a new RUN on what is there now."
            )
    return piece


async def _list(prefix: str, delimiter: str, most: int) -> list[RemoteFile]:
    found: list[RemoteFile] = []
    following = ""
    while True:
        page: Listing = await _retried(partial(list_objects, prefix, delimiter, following), prefix)
        found += [RemoteFile(url, url, size, version) for url, size, version in page.files]
        following = page.following
        if not following or 0 < most <= len(found):
            return found


async def _in_time(request: Callable[[], Awaitable[T]]) -> T:
    try:
        async with asyncio.timeout(range_requests.REQUEST_SECONDS):
            return await request()
    except TimeoutError as error:
        raise Transient("the server did not answer in time") from error


async def _retried(request: Callable[[], Awaitable[T]], address: str) -> T:
    """The result of `request`, made again after failures that may pass, later and later.

    A host that has never answered is not waited for: its name is wrong more often than it is busy.
    """
    import tenacity

    host = "s3" if address.startswith("s3://") else urlsplit(address).netloc
    spread = tenacity.wait_exponential(FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS) + tenacity.wait_random(
        0, FIRST_WAIT_SECONDS
    )

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.wait if isinstance(error, Transient) else 0.0
        return max(spread(state), min(asked, LONGEST_WAIT_SECONDS))

    def may_pass(error: BaseException) -> bool:
        return isinstance(error, Transient) and not (error.unreachable and host not in _answered)

    attempts = tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS), wait=wait, retry=tenacity.retry_if_exception(may_pass), reraise=True
    )  # fmt: skip
    try:
        result: T = await attempts(_in_time, request)
    except Transient as error:
        tried = attempts.statistics.get("attempt_number", 1)
        often = f", {tried} times" if tried > 1 else ""
        fix = error.fix or "Try again when the server or the network is well."
        raise RemoteError(f"{public(address)} cannot be read: {error}{often}. {fix}") from error
    _answered.add(host)
    return result


def _submit(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Starts work on fsspec's own thread for input and output."""
    return asyncio.run_coroutine_threadsafe(work, fsspec.asyn.get_loop())


def _wait(future: Future[T]) -> T:
    try:
        return future.result()
    except CancelledError:
        raise RemoteError("Reading was called off.") from None
    except BaseException:
        future.cancel()
        raise


def _in_parallel(work: list[Callable[[], Awaitable[T]]], advance: Callable[[int], None]) -> Iterator[T]:
    """The results in their order, up to `PARALLEL` under way at once."""
    gate = asyncio.Semaphore(range_requests.PARALLEL)

    async def gated(item: Callable[[], Awaitable[T]]) -> T:
        async with gate:
            return await item()

    futures = [_submit(gated(item)) for item in work]
    try:
        for future in futures:
            yield future.result()
            advance(1)
    finally:
        for future in futures:
            future.cancel()
