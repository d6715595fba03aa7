"""One request for a piece of a file over https or http, by fsspec's session and configuration."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import fsspec

from actmine.pipeline.datasets import range_requests
from actmine.pipeline.datasets.range_requests import (
    Absent,
    Piece,
    Refused,
    RemoteError,
    Transient,
    check_span,
    first_bytes,
    missing_packages,
    public,
    strong_tag,
    total,
)


async def ask_http(address: str, begin: int, end: int) -> Piece:
    """The bytes `begin:end` of a file. Raises `Transient` or `RemoteError`."""
    store = _filesystem()
    import aiohttp
    import yarl

    configured = dict(store.kwargs)
    headers = {
        **configured.pop("headers", {}), "Range": f"bytes={begin}-{end - 1}", "Accept-Encoding": "identity",
    }  # fmt: skip
    patience = aiohttp.ClientTimeout(
        total=None, sock_connect=range_requests.CONNECT_SECONDS, sock_read=range_requests.READ_SECONDS
    )
    escaped = "%" in address and address.isascii() and " " not in address  # a signature allows no second escaping
    try:
        session = await store.set_session()
        url = yarl.URL(address, encoded=escaped)
        async with session.get(url, headers=headers, timeout=patience, **configured) as response:
            _check_http(response, address, begin)
            if response.status == 416:
                return Piece(b"", total(response.headers), strong_tag(response.headers))
            data = await first_bytes(response.content.read, end - begin)
            check_span(response.headers, begin, end, len(data), address)
            return Piece(data, total(response.headers), strong_tag(response.headers))
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise _http_failure(error, address) from error


def _check_http(response: Any, address: str, begin: int) -> None:
    status, name = response.status, public(address)
    said = f"{status} {response.reason or ''}".strip()
    if status == 206 or (status == 416 and total(response.headers) >= 0):
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise RemoteError(f"{name} cannot be read in pieces: its server compresses it. Turn that off for tars.")
    elif status == 200:
        raise RemoteError(
            f"{name} cannot be read in pieces: its server ignores the Range header. Serve it with one that knows it "
            "(nginx, Apache, Caddy, any S3), or copy it to a disk."
        )
    elif status in (404, 410):
        raise Absent(f"{name} cannot be read: there is no such file ({said}). Check DATASET, or put it back.")
    elif status in (401, 403, 407):
        raise Refused(
            f"{name} cannot be read: the server refuses it ({said}). Say who you are in the address "
            "(user:password before its host), in ~/.netrc or by a signed address that has not expired; no "
            "table keeps it."
        )
    elif status in (408, 425, 429) or status >= 500:
        raise Transient(f"the server answered {said}", _retry_after(response.headers))
    else:
        raise RemoteError(f"{name} cannot be read: the server answered {said}. Check the address.")


def _http_failure(error: Exception, address: str) -> Exception:
    import aiohttp

    name, host = public(address), urlsplit(address).hostname
    if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)):
        return RemoteError(
            f"{name} cannot be read: the certificate of {host} is not trusted. "
            "Point SSL_CERT_FILE to the certificate authority that signed it."
        )
    if isinstance(error, (aiohttp.InvalidURL, aiohttp.TooManyRedirects, ValueError)):
        return RemoteError(f"{name} cannot be read: it leads nowhere ({type(error).__name__}). Check the address.")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Transient(
            f"there is no host {host}", fix="Check the address and the network.", unreachable=True
        )  # fmt: skip
    if isinstance(error, aiohttp.ClientConnectorError):
        why = error.os_error.strerror or "no answer"
        return Transient(
            f"{host} cannot be reached ({why.lower()})", fix="Check the address, and whether its server runs.",
            unreachable=True,
        )  # fmt: skip
    if isinstance(error, TimeoutError):
        unreachable = isinstance(error, aiohttp.ConnectionTimeoutError)
        return Transient("the server did not answer in time", unreachable=unreachable)
    return Transient(f"the connection broke ({type(error).__name__})")


def _retry_after(headers: Mapping[str, str]) -> float:
    """What `Retry-After` asks for (seconds): a number, or a date."""
    word = headers.get("Retry-After", "").strip()
    try:
        return max(
            0.0, float(word) if word.isdigit() else email.utils.parsedate_to_datetime(word).timestamp() - time.time()
        )
    except ValueError:
        return 0.0


def _filesystem() -> Any:
    configured = fsspec.config.conf.get("http", {})
    try:
        return fsspec.filesystem("http", client_kwargs={"trust_env": True, **configured.get("client_kwargs", {})})
    except ImportError as error:
        raise missing_packages("http") from error
