"""One request to a store that speaks s3, by s3fs and its configuration: a piece of an object, or a list of them."""

from __future__ import annotations

from dataclasses import dataclass
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
    strong_tag,
    total,
)
from actmine.pipeline.errors import first_line

_S3_TRANSIENT = frozenset(
    "SlowDown InternalError ServiceUnavailable RequestTimeout RequestTimeoutException Throttling ThrottlingException "
    "RequestThrottled BandwidthLimitExceeded TooManyRequestsException".split()
)
_REGION_CODES = frozenset("PermanentRedirect AuthorizationHeaderMalformed IllegalLocationConstraintException".split())


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of the objects below a prefix of s3, by URL, size (bytes) and ETag, and the mark of the next page."""

    files: tuple[tuple[str, int, str], ...]
    following: str


async def ask_s3(address: str, begin: int, end: int) -> Piece:
    """The bytes `begin:end` of an object. Raises `Transient` or `RemoteError`."""
    store = _filesystem()
    bucket, key, _ = store.split_path(address)
    try:
        words = {"Bucket": bucket, "Key": key, "Range": f"bytes={begin}-{end - 1}"}
        response = await store._call_s3("get_object", **words)
        async with response["Body"] as body:
            data = await first_bytes(body.read, end - begin)
    except Exception as error:
        status, code, size = _s3_answer(error)
        if status == 416 or code == "InvalidRange":  # it ends before; an empty file always does
            return Piece(b"", size, "")
        raise _s3_failure(error, address) from error
    headers = {"Content-Range": response.get("ContentRange", "")}
    if not headers["Content-Range"]:
        raise RemoteError(f"{address} cannot be read in pieces: its store ignores the Range header.")
    check_span(headers, begin, end, len(data), address)
    return Piece(data, total(headers), strong_tag(response))


async def list_objects(prefix: str, delimiter: str, following: str) -> Listing:
    """The next page of the objects whose URL begins with `prefix` (`s3://bucket/…`).

    Raises `Transient` or `RemoteError`.
    """
    store = _filesystem()
    bucket, key, _ = store.split_path(prefix)
    words = {"Bucket": bucket, "Prefix": key, "Delimiter": delimiter, "ContinuationToken": following}
    try:
        page = await store._call_s3("list_objects_v2", **{name: word for name, word in words.items() if word})
    except Exception as error:
        raise _s3_failure(error, prefix) from error
    files = [(f"s3://{bucket}/{entry['Key']}", entry["Size"], strong_tag(entry)) for entry in page.get("Contents", ())]
    return Listing(tuple(files), page.get("NextContinuationToken", "") if page.get("IsTruncated") else "")


def _s3_answer(error: BaseException) -> tuple[int, str, int]:
    """Status, code and size of the object (bytes, 0 unknown) that a store answered with; s3fs has wrapped them."""
    for layer in (error, error.__cause__):
        response = getattr(layer, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            said = response.get("Error", {})
            return int(status or 0), str(said.get("Code", "")), int(said.get("ActualObjectSize", 0))
    return 0, "", 0


def _s3_failure(error: Exception, address: str) -> Exception:
    from aiohttp import ClientError
    from botocore import exceptions as boto

    if isinstance(error, (RemoteError, Transient)):
        return error
    bucket = urlsplit(address).netloc
    status, code, _ = _s3_answer(error)
    said = " ".join(dict.fromkeys(str(word) for word in (status, code) if word))
    if code == "NoSuchBucket":
        return RemoteError(
            f"{address} cannot be read: there is no bucket {bucket!r}. "
            "Check its name, and AWS_ENDPOINT_URL if it lies in a store of your own."
        )
    if code in _S3_TRANSIENT or status == 429 or status >= 500:
        return Transient(f"the store answered {said}")
    if code in _REGION_CODES:
        return RemoteError(f"{address} lies in another region ({said}). Say it in AWS_DEFAULT_REGION.")
    if status == 404 or code == "NoSuchKey":
        return Absent(f"{address} cannot be read: there is no such object. Check DATASET, or put it back.")
    if code in ("ExpiredToken", "RequestTimeTooSkewed"):
        return Refused(f"{address} cannot be read ({said}): sign in again, and check this machine's clock.")
    if status in (401, 403) or code:
        return Refused(
            f"{address} cannot be read: the store refuses it ({said}). Check the name and that your credentials may "
            "read it; a public bucket needs FSSPEC_S3_ANON=true."
        )
    if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError, boto.ProfileNotFound)):
        return RemoteError(
            f"{address} cannot be read without credentials ({first_line(error)}). Set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or FSSPEC_S3_ANON=true for a public bucket."
        )
    if isinstance(error, (boto.EndpointConnectionError, boto.ProxyConnectionError, boto.ConnectTimeoutError)):
        return Transient(
            "the store cannot be reached", fix="Check AWS_ENDPOINT_URL and the network.", unreachable=True
        )  # fmt: skip
    if isinstance(error, TimeoutError):
        return Transient("the store did not answer in time")
    if isinstance(error, boto.SSLError):
        return RemoteError(f"{address} cannot be read: the store's certificate is not trusted. Set AWS_CA_BUNDLE.")
    broken = (
        boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError, boto.ResponseStreamingError,
        boto.ReadTimeoutError, ClientError, OSError,
    )  # fmt: skip
    if isinstance(error, broken) or "ResponseParserError" in type(error).__name__:
        return Transient(f"the connection broke ({type(error).__name__})")
    if isinstance(error, (boto.BotoCoreError, ValueError)):
        return RemoteError(f"{address} cannot be read ({first_line(error)}). Check its name and your AWS settings.")
    return error


def _filesystem() -> Any:
    """s3fs with its configuration; its retries are off, for ours are on."""
    patience = {
        "connect_timeout": range_requests.CONNECT_SECONDS, "read_timeout": range_requests.READ_SECONDS,
        "max_pool_connections": range_requests.PARALLEL, "retries": {"total_max_attempts": 1},
    }  # fmt: skip
    configured = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
    try:
        store = fsspec.filesystem("s3", config_kwargs={**configured, **patience})
    except ImportError as error:
        raise missing_packages("s3") from error
    store.retries = 1
    return store
