"""Columns that a later stage adds to a table that is there already, for some of its rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actmine.pipeline.storage.parquet import completed, parquet_file, read_rows, write_table


def add_columns(path: Path, schema: pa.Schema, found: pa.Table, anew: bool = False) -> int:
    """Fills columns of a table, a row group at a time; returns how many rows then have a value in the first of them.

    `found` has the column `row`, numbers of rows of the table, and the columns to fill. Other rows keep what they have,
    or get null where all is `anew`.
    """
    numbers = found["row"].to_numpy()
    names = [name for name in found.column_names if name != "row"]
    values = {name: found[name].combine_chunks().cast(schema.field(name).type) for name in names}
    filled_rows = 0

    def parts() -> Iterator[pa.Table]:
        nonlocal filled_rows
        begin = 0
        with parquet_file(path) as file:
            for group in range(file.num_row_groups):
                part = completed(file.read_row_group(group), schema)
                here = np.flatnonzero((numbers >= begin) & (numbers < begin + part.num_rows))
                which = np.full(part.num_rows, -1)
                which[numbers[here] - begin] = here
                places = pa.array(which, mask=which < 0)
                for name in names:
                    column = values[name].take(places)
                    if not anew:
                        column = pc.if_else(pa.array(which < 0), part[name], column)
                    part = part.set_column(schema.get_field_index(name), schema.field(name), column)
                filled_rows += part.num_rows - part[names[0]].null_count
                begin += part.num_rows
                yield part

    write_table(path, schema, parts())
    return filled_rows


def has_columns(path: Path, *names: str) -> bool:
    """Whether a table has these columns; one written by a version before may not."""
    with parquet_file(path) as file:
        return set(names) <= set(file.schema_arrow.names)


def filled(path: Path, name: str) -> int:
    """How many rows of a table have a value in a column."""
    if not has_columns(path, name):
        return 0
    rows = read_rows(path, [name])
    return int(rows.num_rows - rows[name].null_count)
