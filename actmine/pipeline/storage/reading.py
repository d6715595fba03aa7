"""Reads rows of one unit, or of one image, out of Parquet files: footers are parsed once, recent row groups kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from actmine.pipeline.errors import UserError, first_line
from actmine.pipeline.storage.files import is_local
from actmine.pipeline.storage.parquet import parquet_file

KEPT_BYTES = 256 << 20
"""How much of the row groups read last stays in memory (bytes)."""

_FIX = "If it is damaged, delete the run.json of its run and mine it again."

Stamp = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Footer:
    stamp: Stamp
    metadata: pq.FileMetaData
    names: frozenset[str]
    key: str  # what rows are looked up by
    first: np.ndarray  # its smallest value in each row group
    last: np.ndarray


class Reading:
    """The tables of one run to read from, by many threads at once; files that change are read anew."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._footers: dict[Path, _Footer] = {}
        self._kept: OrderedDict[tuple[object, ...], pa.Table] = OrderedDict()
        self._bytes = 0

    def columns(self, path: Path) -> frozenset[str]:
        """The columns of a file; none where there is no file."""
        footer = self._footer(path)
        return footer.names if footer else frozenset()

    def rows(self, path: Path, columns: Sequence[str], number: int | None = None, keep: bool = True) -> pa.Table | None:
        """The rows of one unit, or all; of `columns` those that the file has. None where there is no file.

        In a table that knows no units, the rows of one image.
        `crop.path` reads of a picture only whether there is one. What is read stays in memory for a while if `keep`.
        Raises `UserError` where a file cannot be read.
        """
        footer = self._footer(path)
        if footer is None:
            return None
        there = tuple(name for name in columns if name.split(".")[0] in footer.names)
        if number is None:
            return self._read(path, footer, there, None) if keep else _read(path, footer, there, None)
        groups = np.flatnonzero((footer.first <= number) & (number <= footer.last))
        if not len(groups):
            return footer.metadata.schema.to_arrow_schema().empty_table()
        parts = [self._read(path, footer, (footer.key, *there), int(group)) for group in groups]
        rows = pa.concat_tables(parts) if len(parts) > 1 else parts[0]
        return rows.filter(pc.equal(rows[footer.key], number))

    def rows_of(self, path: Path, columns: Sequence[str], units: Sequence[int]) -> pa.Table | None:
        """All row groups that hold any of some units, read at once and not kept; otherwise as `rows`."""
        footer = self._footer(path)
        if footer is None:
            return None
        there = tuple(name for name in columns if name.split(".")[0] in footer.names)
        wanted = np.sort(np.asarray(units, np.int64))
        holds = np.searchsorted(wanted, footer.last, "right") > np.searchsorted(wanted, footer.first)
        return _read(path, footer, there, np.flatnonzero(holds).tolist())

    def _read(self, path: Path, footer: _Footer, columns: tuple[str, ...], group: int | None) -> pa.Table:
        name = (path, footer.stamp, columns, group)
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name]
        rows = _read(path, footer, columns, None if group is None else [group])
        with self._lock:
            if name not in self._kept:
                self._kept[name] = rows
                self._bytes += rows.nbytes
            while self._bytes > KEPT_BYTES and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return rows

    def _footer(self, path: Path) -> _Footer | None:
        known = self._footers.get(path)
        if known and not is_local(path):
            return known  # asking whether it has changed would cost as much as reading
        stamp = _stamp(path)
        if stamp is None:
            return None
        if known and known.stamp == stamp:
            return known
        try:
            with parquet_file(path) as file:
                metadata, names = file.metadata, frozenset(file.schema_arrow.names)
        except FileNotFoundError:
            return None
        key = "unit" if "unit" in names else "image_id"
        footer = _Footer(stamp, metadata, names, key, *_spans(metadata, key))
        self._footers[path] = footer
        return footer


def _read(path: Path, footer: _Footer, columns: Sequence[str], groups: list[int] | None) -> pa.Table:
    """Some row groups of a file, or all. Not mapped into memory: one that is cut meanwhile must not end the server."""
    wanted = list(dict.fromkeys(columns))
    local = is_local(path)
    try:
        with ExitStack() as stack:
            source = path if local else stack.enter_context(path.open("rb"))
            file = stack.enter_context(
                pq.ParquetFile(
                    source, metadata=footer.metadata, pre_buffer=not local, page_checksum_verification=True
                )
            )  # fmt: skip
            return file.read(wanted) if groups is None else file.read_row_groups(groups, wanted)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"The table {path} cannot be read ({first_line(error)}). {_FIX}") from error


def _stamp(path: Path) -> Stamp | None:
    if not is_local(path):
        return () if path.is_file() else None
    try:
        state = path.stat()
    except OSError:
        return None
    return (state.st_mtime_ns, state.st_size, state.st_ino)


def _spans(metadata: pq.FileMetaData, key: str) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and largest `key` of each row group; where a writer left none, anything it may be."""
    column = next((at for at in range(metadata.num_columns) if metadata.schema.column(at).path == key), None)
    found: list[tuple[Any, Any]] = []
    for group in range(metadata.num_row_groups):
        span = None if column is None else metadata.row_group(group).column(column).statistics
        found.append((span.min, span.max) if span and span.has_min_max else (-1, np.iinfo(np.int64).max))
    spans = np.array(found, np.int64).reshape(-1, 2)
    return spans[:, 0], spans[:, 1]
