"""A place on S3 with the part of pathlib's interface that a run needs; what S3 refuses becomes a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from botocore.exceptions import BotoCoreError, NoCredentialsError, PartialCredentialsError, ProfileNotFound
from s3fs import S3FileSystem

from actmine.pipeline.errors import GO_ON, UserError, first_line

PART_BYTES = 50 << 20
"""Objects of twice so many bytes and more are uploaded in parts of so many."""


class BucketPath:
    """`s3://bucket/prefix/…`. Every method asks S3 anew, so it sees what other processes have done.

    All of them raise `UserError` where S3 cannot be reached, has no such bucket or refuses; credentials and endpoint
    are those of the AWS tools (`AWS_PROFILE`, `AWS_ENDPOINT_URL`, …) and of fsspec's configuration for `s3`.
    """

    def __init__(self, bucket_and_key: PurePosixPath) -> None:
        self._pure = bucket_and_key
        self._key = str(bucket_and_key)

    def __truediv__(self, below: str) -> BucketPath:
        return BucketPath(self._pure / below)

    def __str__(self) -> str:
        return f"s3://{self._key}"

    def __repr__(self) -> str:
        return f"BucketPath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BucketPath) and self._pure == other._pure

    def __lt__(self, other: BucketPath) -> bool:
        return self._pure < other._pure

    def __hash__(self) -> int:
        return hash(self._pure)

    @property
    def name(self) -> str:
        """The last part."""
        return self._pure.name

    @property
    def stem(self) -> str:
        """The last part without its extension."""
        return self._pure.stem

    @property
    def suffix(self) -> str:
        """The extension of the last part."""
        return self._pure.suffix

    @property
    def parent(self) -> BucketPath:
        """What holds it."""
        return BucketPath(self._pure.parent)

    def with_name(self, name: str) -> BucketPath:
        """Its neighbour called `name`."""
        return BucketPath(self._pure.with_name(name))

    def exists(self) -> bool:
        """Whether it is an object, or a prefix of any."""
        return self._type() != "nothing"

    def is_file(self) -> bool:
        """Whether it is an object."""
        return self._type() == "file"

    def is_dir(self) -> bool:
        """Whether any object lies below it."""
        return self._type() == "directory"

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: prefixes need not be made."""

    def glob(self, pattern: str) -> Iterator[BucketPath]:
        """The objects and prefixes below that match `pattern`, part by part; no `**`."""
        wanted = PurePosixPath(pattern).parts
        fixed = tuple(takewhile(lambda part: not set(part) & set("*?["), wanted[:-1]))
        keys = map(PurePosixPath, _files().find(str(self._pure.joinpath(*fixed))))
        found = {key.relative_to(self._pure).parts[: len(wanted)] for key in keys}
        for parts in sorted(found):
            if len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted)):
                yield BucketPath(self._pure.joinpath(*parts))

    def rglob(self, pattern: str) -> Iterator[BucketPath]:
        """All objects below whose name matches `pattern`."""
        for key in map(PurePosixPath, _files().find(str(self._pure))):
            if fnmatchcase(key.name, pattern):
                yield BucketPath(key)

    def objects(self) -> dict[str, tuple[int, str]]:
        """All objects below by what follows, each with its size (bytes) and ETag."""
        found = _files().find(self._key, detail=True)
        return {
            str(PurePosixPath(key).relative_to(self._pure)): (int(about["size"]), str(about["ETag"]).strip('"'))
            for key, about in found.items() if PurePosixPath(key) != self._pure
        }  # fmt: skip

    def read_bytes(self) -> bytes:
        """The whole object. Raises `FileNotFoundError` where there is none."""
        data: bytes = _files().cat_file(self._key)
        return data

    def write_bytes(self, data: bytes) -> None:
        """Makes or replaces the object, in one put."""
        _files().pipe_file(self._key, data)

    def open(self, mode: str = "rb") -> BinaryIO:
        """The object for reading here and there: each read is one range request of just those bytes."""
        if mode != "rb":
            raise ValueError("objects are written whole: use write_bytes or upload")
        stream: BinaryIO = _files().open(self._key, "rb", cache_type="none")
        return stream

    def upload(self, file: Path) -> None:
        """Makes or replaces the object with a local file's bytes; others see it whole or not at all."""
        _files().put_file(str(file), self._key, chunksize=PART_BYTES)

    def download(self, file: Path) -> None:
        """Writes the object to a local file. Raises `FileNotFoundError` where there is none."""
        _files().get_file(self._key, str(file))

    def remove(self) -> None:
        """Deletes the object, or every object below."""
        for key in _files().find(self._key):
            _files().rm_file(key)

    def remove_below(self, names: Iterable[str]) -> None:
        """Deletes the objects of such names below, many in one request."""
        if keys := [str(self._pure / name) for name in names]:
            _files().rm(keys)

    def _type(self) -> str:
        try:
            return str(_files().info(self._key)["type"])
        except FileNotFoundError:
            return "nothing"


def _files() -> _Files:
    return _Files(use_listings_cache=False)  # s3fs keeps one instance


class _Files(S3FileSystem):
    """s3fs; every request passes `_call_s3`, so that is where failures get their sentence."""

    async def _call_s3(self, method: str, *akwarglist: Any, **kwargs: Any) -> Any:
        try:
            return await super()._call_s3(method, *akwarglist, **kwargs)
        except (BotoCoreError, OSError) as error:
            if isinstance(error, FileNotFoundError) and _code(error) != "NoSuchBucket":
                raise
            raise UserError(_sentence(error, str(kwargs.get("Bucket")), str(kwargs.get("Key", "")))) from error


def _code(error: BaseException) -> str:
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _sentence(error: BaseException, bucket: str, key: str) -> str:
    place = f"s3://{bucket}/{key}"
    if isinstance(error, NoCredentialsError | PartialCredentialsError | ProfileNotFound):
        return (
            f"{place} cannot be reached: {first_line(error).rstrip('.')}. "
            f"Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; {GO_ON}"
        )
    if _code(error) == "NoSuchBucket":
        return f"There is no bucket {bucket}. Make it, or choose another RUN."
    if isinstance(error, PermissionError):
        return (
            f"S3 refuses {place} ({first_line(error)}). Check that the credentials are right and may read, write, "
            f"list and delete there; {GO_ON}"
        )
    return f"S3 failed at {place} ({first_line(error)}). Check the network and AWS_ENDPOINT_URL; {GO_ON}"
