"""Sums within files that show whether they are as they were written, where no reader of their format minds them.

A Parquet file's pages have checksums of their own; its seal lies before the footer, which says where everything is. An
Arrow file's lies at its end.
"""

from __future__ import annotations

import mmap
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from actmine.pipeline.errors import Damaged
from actmine.pipeline.storage.files import is_local

_MARK = b"actm"
_SUM, _TAIL = 4, 8  # bytes: of a sum; of a Parquet file's end, which is the footer's length and a mark
_OTHER = "its bytes are not those that were written"


def seal_table(path: Path) -> None:
    """Puts the sums of the data and of the footer between the two."""
    with path.open("r+b") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole, memoryview(whole) as data:
            begin = _footer(data)
            footer = bytes(data[begin:])
            seal = _MARK + _sum(data[:begin]) + _sum(footer)
        file.seek(begin)
        file.write(seal + footer)


def check_footer(path: Path) -> None:
    """Raises `Damaged` where the footer of a sealed table has changed; a table without a seal passes."""
    with path.open("rb") as file:
        file.seek(0, 2)
        size = file.tell()
        file.seek(max(size - _TAIL, 0))
        length = int.from_bytes(file.read(4), "little") + _TAIL
        sealed = len(_MARK) + 2 * _SUM
        if size < length + sealed:
            return  # cut, which whoever reads it says
        file.seek(size - length - sealed)
        data = file.read()
    if data.startswith(_MARK) and data[sealed - _SUM : sealed] != _sum(data[sealed:]):
        raise Damaged(_OTHER)


def is_whole(path: Path, before: bool = True) -> bool:
    """Whether a table is there, with every byte as it was written; reads all of it.

    One without a seal, as versions before wrote them, passes if its footer can be read, but not if `before` is false.
    On S3, whose store keeps sums itself, a table only has to be there.
    """
    if not is_local(path) or not path.is_file():
        return path.is_file()
    if path.stat().st_size < _TAIL:
        return False
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole,
        memoryview(whole) as data,
    ):
        begin = _footer(data)
        seal = max(begin - len(_MARK) - 2 * _SUM, 0)
        if bytes(data[seal:begin]) == _MARK + _sum(data[:seal]) + _sum(data[begin:]):
            return True
        if not before or data[seal : seal + len(_MARK)] == _MARK:
            return False
    try:
        pq.read_metadata(path)
    except (pa.ArrowException, OSError):
        return False
    return True


def sealed(data: pa.Buffer) -> bytes:
    """An Arrow file, and its sum behind it."""
    view = memoryview(data).cast("B")
    return b"".join((view, _MARK, _sum(view)))


def unsealed(data: pa.Buffer) -> pa.Buffer:
    """What `sealed` was given. Raises `Damaged` where it is not that."""
    view, end = memoryview(data).cast("B"), data.size - len(_MARK) - _SUM
    if end < 0 or view[end:] != _MARK + _sum(view[:end]):
        raise Damaged(_OTHER)
    return data.slice(0, end)


def _footer(data: memoryview) -> int:
    """Where the footer begins; 0 where what says so cannot be true."""
    return max(len(data) - _TAIL - int.from_bytes(data[-_TAIL:-4], "little"), 0)


def _sum(data: bytes | memoryview) -> bytes:
    return zlib.crc32(data).to_bytes(_SUM, "little")
