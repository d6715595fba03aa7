"""The index beside a shard: what its images are, so that any damage shows; reads, writes and checks one."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from actmine.pipeline.datasets.remote import RemoteFile, read_whole
from actmine.pipeline.datasets.tars import ShardError
from actmine.pipeline.errors import first_line
from actmine.pipeline.storage.files import open_regular, written_aside
from actmine.schemas.shard_index import SHARD_INDEX

SUFFIX = ".index.parquet"
MOST_BYTES = 1 << 30
"""The longest index that is read (bytes): some ten million images."""
_NOTE = b"actmine"
_CHECKED = ("key", "path", "offset", "nbytes", "crc32", "label", "label_name")


def index_name(tar: str) -> str:
    """The index that belongs to a tar, by name, path or address: `a/0.index.parquet` of `a/0.tar?sig=1`."""
    head, mark, query = tar.partition("?") if tar.lower().startswith(("http://", "https://")) else (tar, "", "")
    folder, slash, name = head.rpartition("/")
    return f"{folder}{slash}{name.removesuffix('.tar')}{SUFFIX}{mark}{query}"


def write_index(path: Path, rows: list[dict[str, object]], note: dict[str, Any]) -> None:
    """Writes rows of `SHARD_INDEX`, and `note` as metadata. Raises `UserError` if `path` cannot be written."""
    schema = SHARD_INDEX.with_metadata({_NOTE: json.dumps(note).encode()})
    with (
        written_aside(path) as aside,
        pq.ParquetWriter(str(aside), schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        writer.write_table(pa.Table.from_pylist(rows, schema))


def read_note(path: Path) -> dict[str, Any]:
    """What `write_index` was given as `note`; empty where the file is no index. Raises OSError if it is not there."""
    try:
        written = pq.read_schema(pa.BufferReader(path.read_bytes())).metadata or {}
        note = json.loads(written[_NOTE])
    except (pa.ArrowException, KeyError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


class IndexCheck:
    """Holds the samples of the shard at `url`, as they come, against the index at `place`.

    Raises `ShardError` if the index is damaged or is none.
    """

    def __init__(self, url: str, place: str | RemoteFile) -> None:
        self.url = url
        self.place = place if isinstance(place, str) else place.url
        try:
            data = _data(place)
            table = pq.read_table(pa.BufferReader(data), columns=[*_CHECKED], page_checksum_verification=True)
            self._rows = [tuple(row[name] for name in _CHECKED) for row in table.to_pylist()]
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            raise ShardError(
                f"{self.place}, the index of shard {url}, cannot be read as one ({first_line(error)}). "
                "Restore it; or delete it, and the shard is read without it."
            ) from error
        self._next = 0

    def rejected(self, key: str) -> None:
        """Takes note of a sample that could not be read. Raises `ShardError` if the index has another one here."""
        self._row(key)

    def problem(self, key: str, place: tuple[str, int, int], data: bytes, label: int | None, word: str | None) -> str:
        """What is wrong with the next sample, or nothing; `place` is its path, offset and length (bytes).

        Raises `ShardError` if the index has another sample here.
        """
        row = self._row(key)
        if row[1:4] != place:
            self._refuse(
                f"{row[1]} at byte {row[2]:,}, {row[3]:,} bytes", f"{place[0]} at byte {place[1]:,}, {place[2]:,} bytes"
            )
        crc = zlib.crc32(data)
        if crc != row[4]:
            return f"its bytes are not those that were written: crc32 {crc:08x}, not {row[4]:08x}"
        none = (label, word) == (None, None) and (row[5] or 0) < 0  # versions before wrote negative numbers down
        if (label, word) != row[5:7] and not none:
            return f"its label is not the one that was written: {_said(label, word)}, not {_said(*row[5:7])}"
        return ""

    def end(self) -> None:
        """Raises `ShardError` if the index has more samples than came."""
        if self._next < len(self._rows):
            self._refuse(self._rows[self._next][0], "the end of the tar")

    def _row(self, key: str) -> tuple[Any, ...]:
        if self._next == len(self._rows):
            self._refuse("no further sample", key)
        row = self._rows[self._next]
        if row[0] != key:
            self._refuse(row[0], key)
        self._next += 1
        return row

    def _refuse(self, written: str, found: str) -> None:
        raise ShardError(
            f"{self.place} is not the index of shard {self.url}, or the shard is damaged: "
            f"as sample {self._next} it has {written}, the shard has {found}. "
            "Restore both; or delete the index, and the shard is read without it."
        )


def _data(place: str | RemoteFile) -> bytes:
    """The bytes of an index. Raises `OSError` or `ShardError` where they are too many for one."""
    if isinstance(place, RemoteFile):
        return read_whole(place, MOST_BYTES)
    with open_regular(place) as stream:
        data = stream.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise OSError(f"it has more than {MOST_BYTES:,} bytes")
    return data


def _said(label: int | None, word: str | None) -> str:
    return " ".join(str(part) for part in (label, word) if part is not None) or "none"
