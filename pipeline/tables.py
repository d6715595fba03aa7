"""Schemas to Parquet files, whole or not at all, laid out for quick look-ups of one unit."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.files import written_aside
from schemas.fields import IMAGE

MOST_ROWS_A_GROUP = 450


def write_table(path: Path, schema: pa.Schema, parts: Iterable[pa.Table]) -> None:
    """Writes `parts` one after the other; a part of up to 450 rows is a row group of its own.

    Encoded pictures are stored as they are, everything else as zstd. Raises `UserError` if `path` cannot be written.
    """
    with written_aside(path) as aside, pq.ParquetWriter(aside, schema, **_layout(schema)) as writer:
        for part in parts:
            writer.write_table(part.cast(schema), row_group_size=MOST_ROWS_A_GROUP if _has_images(schema) else None)


def write_rows(path: Path, schema: pa.Schema, rows: list[dict[str, object]]) -> None:
    """A small table from records."""
    write_table(path, schema, [pa.Table.from_pylist(rows, schema)])


def image_column(pictures: Iterable[bytes | None] | pa.Array) -> pa.Array:
    """Encoded pictures as a column of `schemas.fields.IMAGE`; null where there is none."""
    data = pictures if isinstance(pictures, pa.Array) else pa.array(pictures, pa.binary())
    paths = pa.nulls(len(data), pa.string())
    return pa.StructArray.from_arrays([data, paths], fields=list(IMAGE), mask=data.is_null())


def units_a_group(k: int) -> int:
    """How many units with k exemplars each make a row group of at most 450 rows."""
    return max(1, MOST_ROWS_A_GROUP // max(k, 1))


def _has_images(schema: pa.Schema) -> bool:
    return any(column.type == IMAGE for column in schema)


def _layout(schema: pa.Schema) -> dict[str, object]:
    leaves = [
        leaf for column in schema
        for leaf in ([f"{column.name}.bytes", f"{column.name}.path"] if column.type == IMAGE else [column.name])
    ]  # fmt: skip
    pictures = [leaf for leaf in leaves if leaf.endswith(".bytes")]
    return {
        "compression": {leaf: "none" if leaf in pictures else "zstd" for leaf in leaves},
        "use_dictionary": [leaf for leaf in leaves if leaf not in pictures],
        "write_statistics": [leaf for leaf in leaves if leaf not in pictures],
    }
