"""Schemas to Parquet files, whole or not at all, laid out for quick look-ups of one unit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from actmine.pipeline.errors import Damaged, UserError, first_line
from actmine.pipeline.storage.files import NO_FILE, is_local, local_copy, remove_files, write_bytes, written_aside
from actmine.pipeline.storage.seals import check_footer, seal_table, sealed, unsealed
from actmine.schemas.fields import IMAGE

ROWS_A_PART = 450
MOST_ROWS_A_GROUP = 1_800
MOST_BYTES_A_GROUP = 9_000_000  # of pictures: what looking up one unit costs at most, read from S3
BYTES_OF_ONE_IMAGE = 256 << 10
"""Pictures of a row group of a table by image: what looking up one image costs at most, or one picture."""
_BY_UNIT, _BY_IMAGE = ("layer", "unit"), ("image_id",)


def write_table(path: Path, schema: pa.Schema, parts: Iterable[pa.Table]) -> None:
    """Writes `parts` one after the other; no part of up to 450 rows is divided among row groups.

    A table by unit has row groups of up to 9 MB of pictures; one by image has a row group for each part. Encoded
    pictures are stored as they are, everything else as zstd; pages have checksums. Raises `UserError` if `path` cannot
    be written.
    """
    with written_aside(path) as aside:
        with pq.ParquetWriter(aside, schema, **_layout(schema)) as writer:
            for group in _row_groups(parts) if _has_images(schema) and "unit" in schema.names else parts:
                writer.write_table(group.cast(schema))
        seal_table(aside)


def write_rows(path: Path, schema: pa.Schema, rows: list[dict[str, object]]) -> None:
    """A small table from records."""
    write_table(path, schema, [pa.Table.from_pylist(rows, schema)])


@contextmanager
def parquet_file(path: Path) -> Iterator[pq.ParquetFile]:
    """A table's file to read from: mapped into memory, or on S3 the ranges of bytes that are asked for.

    Its footer is checked at once, and every page as it is read.
    Raises `FileNotFoundError` where there is none, `UserError` where it cannot be read.
    """
    try:
        if is_local(path):
            if path.exists() and not path.is_file():
                raise OSError(NO_FILE)
            check_footer(path)
            with pq.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
                yield file
        else:
            with (
                path.open("rb") as stream,
                pq.ParquetFile(stream, pre_buffer=True, page_checksum_verification=True) as file,
            ):
                yield file
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, Damaged) as error:
        raise UserError(
            f"The table {path} cannot be read ({first_line(error)}). "
            "If it is damaged, delete the run.json of its run and mine it again."
        ) from error


def read_rows(path: Path, columns: list[str] | None = None) -> pa.Table:
    """All rows of a table's file. Raises as `parquet_file` does."""
    with parquet_file(path) as file:
        return file.read(columns)


def write_arrow(path: Path, data: pa.Buffer) -> None:
    """Keeps an Arrow file of a stage under way, with its sum. Raises `UserError` if it cannot be written."""
    write_bytes(path, sealed(data))


def read_arrow(path: Path, schema: pa.Schema) -> pa.Table:
    """The rows of a file that `write_arrow` wrote, mapped into memory. Raises `UserError` if it is damaged."""
    try:
        with local_copy(path) as file:
            rows = pa.ipc.open_file(pa.BufferReader(unsealed(pa.memory_map(str(file)).read_buffer()))).read_all()
        if not rows.schema.equals(schema):
            raise pa.ArrowInvalid("it has other columns")
    except (pa.ArrowException, OSError, Damaged) as error:
        raise UserError(
            f"The file {path} is damaged ({first_line(error)}). The same command makes it again."
        ) from error
    return rows


def whole_parts(paths: Iterable[Path], schema: pa.Schema) -> set[str]:
    """The names of those files of `write_arrow` that are whole; the others are deleted, to be made again.

    On S3, whose store keeps sums itself, all are.
    """
    found, broken = set(), []
    for path in paths:
        try:
            if is_local(path):
                read_arrow(path, schema)
            found.add(path.name)
        except UserError:
            broken.append(path)
    remove_files(broken)
    return found


def image_column(pictures: Iterable[bytes | None] | pa.Array) -> pa.Array:
    """Encoded pictures as a column of `actmine.schemas.fields.IMAGE`; null where there is none."""
    data = pictures if isinstance(pictures, pa.Array) else pa.array(pictures, pa.binary())
    paths = pa.nulls(len(data), pa.string())
    return pa.StructArray.from_arrays([data, paths], fields=list(IMAGE), mask=data.is_null())


def completed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """`rows` in the columns of `schema`: those that a table of a version before has not are null."""
    missing = {field.name: pa.nulls(len(rows), field.type) for field in schema if field.name not in rows.column_names}
    columns = [missing[name] if name in missing else rows[name] for name in schema.names]
    return pa.table(columns, schema=schema)


def units_a_part(k: int) -> int:
    """How many units with k exemplars each make a part of at most 450 rows."""
    return max(1, ROWS_A_PART // max(k, 1))


def _in_parts(table: pa.Table) -> Iterator[pa.Table]:
    """A table in parts of 450 rows."""
    return (table.slice(at, ROWS_A_PART) for at in range(0, len(table), ROWS_A_PART))


def few_bytes(tables: Iterable[pa.Table], column: str) -> Iterator[pa.Table]:
    """The rows of tables by image in parts of up to 256 KiB of the pictures in a `column`, or of one larger picture."""
    waiting: list[pa.Table] = []
    size = 0
    for table in tables:
        lengths = pc.fill_null(pc.binary_length(pc.struct_field(table[column], "bytes")), 0).to_pylist()
        begin = 0
        for row, more in enumerate(lengths):
            if size and size + more > BYTES_OF_ONE_IMAGE:
                yield pa.concat_tables([*waiting, table.slice(begin, row - begin)])
                waiting, begin, size = [], row, 0
            size += more
        waiting.append(table.slice(begin))
    if any(map(len, waiting)):
        yield pa.concat_tables(waiting)


def _row_groups(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Gathers parts until their pictures take 9 MB or their rows are 1,800.

    Few groups make footers short, and a folder of many layers quick to look a unit up in; small ones make that cheap
    where every byte is fetched. What comes in such groups is left in them.
    """
    gathered: list[pa.Table] = []
    rows = size = 0
    for part in parts:
        for piece in [part] if _fits(len(part), _picture_bytes(part)) else _in_parts(part):
            more = _picture_bytes(piece)
            if gathered and not _fits(rows + len(piece), size + more):
                yield pa.concat_tables(gathered)
                gathered, rows, size = [], 0, 0
            gathered.append(piece)
            rows, size = rows + len(piece), size + more
    if gathered:
        yield pa.concat_tables(gathered)


def _fits(rows: int, size: int) -> bool:
    return rows <= MOST_ROWS_A_GROUP and size <= MOST_BYTES_A_GROUP


def _picture_bytes(rows: pa.Table) -> int:
    """How many bytes the pictures of `rows` have."""
    pictures = (rows[column.name] for column in rows.schema if column.type == IMAGE)
    return sum(pc.sum(pc.binary_length(pc.struct_field(column, "bytes"))).as_py() or 0 for column in pictures)


def _has_images(schema: pa.Schema) -> bool:
    return any(column.type == IMAGE for column in schema)


def _leaves(column: pa.Field) -> list[str]:
    """What Parquet calls the columns that it stores one as."""
    if column.type == IMAGE:
        return [f"{column.name}.bytes", f"{column.name}.path"]
    lists = pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)
    return [f"{column.name}.list.element" if lists else column.name]


def _layout(schema: pa.Schema) -> dict[str, object]:
    leaves = [leaf for column in schema for leaf in _leaves(column)]
    pictures = [leaf for leaf in leaves if leaf.endswith(".bytes")]
    # statistics of other columns exclude no row group, but cost a sixth of a look-up
    sorted_by = _BY_UNIT if "unit" in schema.names else _BY_IMAGE
    return {
        "compression": {leaf: "none" if leaf in pictures else "zstd" for leaf in leaves},
        "use_dictionary": [column.name for column in schema if column.type == pa.string()],
        "write_page_checksum": True,
        "write_statistics": [leaf for leaf in leaves if leaf in sorted_by] if pictures else True,
    }
