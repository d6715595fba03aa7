"""A shard that is some row groups of a Parquet file with images, as the Hugging Face hub keeps datasets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import PurePosixPath
from typing import Any, Self

from actmine.pipeline.datasets.folder_shards import folder_key
from actmine.pipeline.datasets.parquet_files import (
    SUFFIX,
    Columns,
    ParquetFile,
    columns_of,
    forget,
    image_at,
    is_parquet,
    rows,
)
from actmine.pipeline.datasets.range_requests import file_name
from actmine.pipeline.datasets.remote import RemoteFile, is_remote, remote_file
from actmine.pipeline.datasets.samples import MAX_BYTES, Place, Rejected, Sample, too_long
from actmine.pipeline.datasets.shards import Shard
from actmine.pipeline.datasets.tars import readable


@dataclass(frozen=True, slots=True)
class ParquetShard(Shard):
    """Row `groups` (from, to) of the file at `url`, of which `first` is the number of the first row.

    `remote` is a file over https or s3 as it was found, `columns` those that are meant, None where they are looked for.
    """

    first: int = 0
    groups: tuple[int, int] = (0, 0)
    remote: RemoteFile | None = None
    columns: Columns | None = None

    @classmethod
    def reopened(cls, number: int, url: str, barred: str) -> Self | None:
        """The shard of a finished run, to read images again by their rows; None for what is no Parquet file."""
        return cls(number, url, barred=barred) if is_parquet(url) else None

    @property
    def is_far(self) -> bool:
        """Whether it lies elsewhere."""
        return "://" in self.url

    def samples(self) -> Iterator[Sample | Rejected]:
        """As `Shard.samples`. A key is the image's path without its extension, or the file's name and the row."""
        file, name = self._file(), file_stem(self.url)
        columns = self.columns or columns_of(file)
        seen: set[str] = set()
        for position, (data, path, label) in zip(count(), rows(file, columns, range(*self.groups)), strict=False):
            row = self.first + position
            numbered = f"{name}/{row:06d}"
            key = folder_key(readable(path)) if path else numbered
            key = numbered if key in seen else key
            seen.add(key)
            place = Place(readable(path) if path else numbered, row, len(data or b""))
            yield _sample(position, key, place, data, path, label, columns)

    def bytes_at(self, place: Place) -> tuple[bytes, str, bool]:
        """As `Shard.bytes_at`."""
        data = image_at(self._file(), place.offset)
        if data is None:
            raise self.trap(place)
        return data, f"Row {place.offset:,} of {self.url}", len(data) > place.nbytes

    def _file(self) -> ParquetFile:
        elsewhere = self.remote or (remote_file(self.url) if is_remote(self.url) else None)
        return ParquetFile(self.url, sized(elsewhere) if elsewhere else None)


def file_stem(url: str) -> str:
    """The name of a file without its ending."""
    return PurePosixPath(file_name(url) if "://" in url else url).name.removesuffix(SUFFIX)


def sized(file: RemoteFile) -> RemoteFile:
    """The file with its length, asked for where it is not known."""
    if file.size >= 0:
        return file
    from actmine.pipeline.datasets.remote import look_up

    found = look_up([file.address])[0]
    forget(file.url)
    return found or file


def _sample(
    position: int, key: str, place: Place, data: bytes | None, path: str | None, label: Any, columns: Columns
) -> Sample | Rejected:
    if data is None:
        why = f"the file has no bytes of it, only the path {readable(path)}" if path else "no image in its row"
        return Rejected(position, key, why)
    if len(data) > MAX_BYTES:
        return Rejected(position, key, too_long(len(data)))
    if columns.said:
        return Sample(position, key, place, data, None, readable(label) if label else None)
    number = label if isinstance(label, int) and 0 <= label < 2**31 else None
    name = columns.names[number] if columns.names and number is not None and number < len(columns.names) else None
    return Sample(position, key, place, data, number, name)
