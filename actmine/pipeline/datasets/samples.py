"""An image of a dataset: where its bytes are, what they are, and what is said of one that cannot be mined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from actmine.pipeline.datasets.tars import ShardError

IMAGE_EXTENSIONS = frozenset("jpg jpeg jpe jfif png webp bmp gif tif tiff ppm pgm pbm pnm jp2 tga avif".split())
MAX_BYTES = 1 << 30
"""The longest encoded image that is read (bytes)."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of an image are: file `path` of a shard, `nbytes` from byte `offset` of the tar on.

    In Parquet files and datasets `offset` is the row.

    `crc32` is what their sum was when they were scanned; runs of versions before do not know.
    """

    path: str
    offset: int
    nbytes: int
    crc32: int | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Place:
        """Where the image of a row of `images.parquet` is."""
        crc32 = row.get("crc32")
        known = None if crc32 is None or crc32 != crc32 else int(crc32)  # pandas has a NaN for null
        return cls(row["path"], int(row["offset"]), int(row["nbytes"]), known)


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a shard, still encoded; `position` counts the samples of its shard from 0."""

    position: int
    key: str
    place: Place
    data: bytes
    label: int | None = None
    label_name: str | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A sample that cannot be mined, and why; one row of `skipped.parquet`."""

    position: int
    key: str
    error: str


class Replaced(ShardError):
    """An image is no longer the one that was scanned; `how` says what of it is other."""

    def __init__(self, sentence: str, how: str = "") -> None:
        super().__init__(sentence)
        self.how = how


def extension(name: str) -> str:
    """The last extension of a file name, in lower case, without its dot."""
    return PurePosixPath(name).suffix[1:].lower()


def too_long(nbytes: int) -> str:
    """Says that an image has more bytes than are read."""
    return f"its {nbytes:,} bytes are more than the limit of {MAX_BYTES:,}"
