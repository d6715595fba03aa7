"""Parquet files that hold images, on a disk or elsewhere: which columns are meant, all rows in order, one again."""

from __future__ import annotations

import io
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from actmine.pipeline.datasets.range_requests import RemoteError, public
from actmine.pipeline.datasets.remote import RemoteFile, read_range
from actmine.pipeline.datasets.tars import KEPT, ShardError, shard_error
from actmine.pipeline.errors import UserError, first_line
from actmine.pipeline.spoken import install

SUFFIX = ".parquet"
_SCHEMES = {"hf": "hf", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
"""Addresses that fsspec reads, and the extra that holds what it needs for them."""
_ROWS = 16  # decoded at a time: images, not columns, are what memory holds
_OPEN = 64
_GROUPS = 2
_IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png")
_LABEL_NAMES = ("label", "labels", "cls", "class", "fine_label")


def is_parquet(url: str) -> bool:
    """Whether a path or an address names a Parquet file."""
    return url.partition("?")[0].lower().endswith(SUFFIX)


def read_by_fsspec(word: str) -> bool:
    """Whether an address is one that fsspec reads."""
    return "://" in word and word.partition("://")[0].lower() in _SCHEMES


def file_system(word: str) -> tuple[Any, str]:
    """The file system of an address and the path in it. Raises `UserError` where what it takes is not installed."""
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(word)
        return found
    except (ImportError, ValueError) as error:
        extra = _SCHEMES[word.partition("://")[0].lower()]
        raise UserError(f"{public(word)} cannot be read ({first_line(error)}). It needs: {install(extra)}") from error


@dataclass(frozen=True, slots=True)
class ParquetFile:
    """A file at `url`; `remote` is one over https or s3 as it was found."""

    url: str
    remote: RemoteFile | None = None

    @property
    def is_far(self) -> bool:
        """Whether it lies elsewhere."""
        return "://" in self.url

    def opened(self) -> pq.ParquetFile:
        """The file with its footer, which stays in memory. Raises `ShardError` where it cannot be read or is none."""
        with self.reading():
            key = self.now
            with _LOCK:
                if key in _FILES:
                    _FILES.move_to_end(key)
                    return _FILES[key]
            file = pq.ParquetFile(self._source(), pre_buffer=False)
        with _LOCK:
            _FILES[key] = file
            if len(_FILES) > _OPEN:
                _FILES.popitem(last=False)
        return file

    @property
    def now(self) -> tuple[object, ...]:
        """What tells the file from another in its place, on a disk."""
        if self.is_far:
            return (self,)
        state = os.stat(self.url)
        return self, state.st_size, state.st_mtime_ns

    def reading(self) -> _Reading:
        """A block whose errors are `ShardError`s."""
        return _Reading(public(self.url))

    def _source(self) -> Any:
        if self.remote is not None:
            return pa.PythonFile(_Ranges(self.remote), mode="r")
        if self.is_far:
            system, path = file_system(self.url)
            return pa.PythonFile(system.open(path, "rb"), mode="r")
        return self.url


class _Reading:
    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RemoteError):
            raise shard_error(error) from error
        ours = isinstance(error, UserError | AttributeError | TypeError | NameError)  # said already, or a defect
        if ours or not isinstance(error, Exception):  # else whatever a file system and its libraries raise
            return
        raise ShardError(f"{self._url} cannot be read as Parquet ({first_line(error).rstrip('.')}). {KEPT}") from error


class _Ranges(io.RawIOBase):
    """A file elsewhere that can be read anywhere in it."""

    def __init__(self, file: RemoteFile) -> None:
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._file.size if size is None or size < 0 else min(self._at + size, self._file.size)
        data = read_range(self._file, self._at, end) if end > self._at else b""
        self._at += len(data)
        return data


_FILES: OrderedDict[tuple[object, ...], pq.ParquetFile] = OrderedDict()
_LOCK = threading.RLock()
_CACHE: OrderedDict[tuple[object, ...], pa.Array] = OrderedDict()


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns are meant: the `image`, whose bytes are `nested` in a struct or not; `path`, if that has one.

    `label` holds class numbers, whose `names` are known or not; or, if `said`, words. None where there are none.
    """

    image: str
    nested: bool
    path: bool
    label: str | None = None
    said: bool = False
    names: tuple[str, ...] | None = None

    @property
    def read(self) -> list[str]:
        """The columns to read."""
        image = [self.image] if not self.nested else [f"{self.image}.bytes", *([f"{self.image}.path"] * self.path)]
        return [*image, *([self.label] if self.label else [])]


def columns_of(file: ParquetFile) -> Columns:
    """What columns the images and labels of a file are in, by the metadata of Hugging Face or by name and type.

    Raises `UserError` where it holds no images, or several columns of them.
    """
    schema = file.opened().schema_arrow
    features = _features(schema)
    declared = [name for name in schema.names if _kind(features, name) == "Image"]
    fitting = [name for name in schema.names if _may_hold_images(schema.field(name).type)]
    nested = [name for name in fitting if pa.types.is_struct(schema.field(name).type)]
    known = [name for name in _IMAGE_NAMES if name in (declared or fitting)]
    one = next((each for each in (declared, known[:1], nested, fitting) if len(each) == 1), None)
    if one is None:
        what = f"several columns of images ({', '.join(declared or fitting)})" if declared or fitting else "no images"
        raise UserError(
            f"{public(file.url)} holds {what}: actmine takes a column called image, of encoded bytes or of the struct "
            f"bytes, path. Its columns are {', '.join(schema.names)}."
        )
    kind = schema.field(one[0]).type
    inside = [kind.field(place).name for place in range(kind.num_fields)] if pa.types.is_struct(kind) else []
    labels = [name for name in schema.names if _kind(features, name) == "ClassLabel"]
    labels = [name for name in _LABEL_NAMES if name in (labels or schema.names)] or labels
    label = labels[0] if labels else None
    said = label is not None and _is_text(schema.field(label).type)
    if label is not None and not said and not pa.types.is_integer(schema.field(label).type):
        label = None
    about = features.get(label or "", {})
    names = about.get("names") if isinstance(about, Mapping) else None
    words = tuple(map(str, names)) if isinstance(names, list) and names else None
    return Columns(one[0], bool(inside), "path" in inside, label, said, words)


def rows(file: ParquetFile, columns: Columns, groups: range) -> Iterator[tuple[bytes | None, str | None, Any]]:
    """The bytes of each image of some row groups, its path and its label; None where there is none."""
    with file.reading():
        for batch in file.opened().iter_batches(_ROWS, row_groups=list(groups), columns=columns.read):
            images, paths = _images(batch.column(columns.image), columns), _paths(batch, columns)
            labels = batch.column(columns.label).to_pylist() if columns.label else [None] * len(paths)
            for image, path, label in zip(images, paths, labels, strict=True):
                yield image.as_py(), path, label


def image_at(file: ParquetFile, row: int) -> bytes | None:
    """The bytes of the image in a row; None beyond the end. Its row group is read as a whole, and kept for the next."""
    opened, first = file.opened(), 0
    for group in range(opened.num_row_groups):
        count = opened.metadata.row_group(group).num_rows
        if row < first + count:
            found: bytes | None = _group(file, group)[row - first].as_py()
            return found or b""
        first += count
    return None


def _group(file: ParquetFile, group: int) -> pa.Array:
    with _LOCK:  # one at a time: the threads that want images want neighbours of each other
        with file.reading():
            known = (*file.now, group)
        if known not in _CACHE:
            columns = columns_of(file)
            with file.reading():
                table = file.opened().read_row_group(group, columns=[columns.read[0]])
            while len(_CACHE) >= _GROUPS:
                _CACHE.popitem(last=False)
            _CACHE[known] = _images(table.column(columns.image), columns)
        _CACHE.move_to_end(known)
        return _CACHE[known]


def forget(url: str) -> None:
    """Drops what is kept of a file: it is read anew."""
    with _LOCK:
        for kept in (_FILES, _CACHE):
            for known in [each for each in kept if getattr(each[0], "url", "") == url]:
                del kept[known]


def _images(column: pa.Array | pa.ChunkedArray, columns: Columns) -> pa.Array | pa.ChunkedArray:
    return pc.struct_field(column, "bytes") if columns.nested else column


def _paths(batch: pa.RecordBatch, columns: Columns) -> list[str | None]:
    if not columns.path:
        return [None] * batch.num_rows
    found: list[str | None] = pc.struct_field(batch.column(columns.image), "path").to_pylist()
    return found


def _features(schema: pa.Schema) -> dict[str, Any]:
    """What Hugging Face's metadata says of the columns."""
    try:
        said = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return said if isinstance(said, dict) else {}


def _kind(features: Mapping[str, Any], name: str) -> str:
    about = features.get(name)
    return str(about.get("_type", "")) if isinstance(about, Mapping) else ""


def _may_hold_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _is_bytes(kind.field(place).type)
    return _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind  # pandas' categories
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
