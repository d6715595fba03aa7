"""Columns of all of a layer's exemplars, whichever version of the tables a run has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from actmine.pipeline.errors import UserError
from actmine.pipeline.readings.statistics_options import TOP
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import parquet_file


def exemplar_columns(run: Path, layer: str, names: Sequence[str]) -> pa.Table:
    """The columns `names` of a layer's exemplars, ordered by unit and rank. Raises `UserError` where there are none."""
    path = table_file(run, "exemplars", layer)
    try:
        with parquet_file(path) as file:
            there = set(file.schema_arrow.names)
            rows = file.read([name for name in names if name in there])
    except FileNotFoundError as error:
        raise UserError(
            f"{run} has no exemplars of {layer}: {path} is missing. Delete the run.json of the run and mine it again."
        ) from error
    return with_bands(rows).select(names)


def with_bands(rows: pa.Table) -> pa.Table:
    """The rows with the band top where none is said: of a version before, or added to such a table since."""
    if "band" not in rows.column_names:
        return rows.append_column("band", pa.array([TOP] * len(rows), pa.string()))
    place = rows.schema.get_field_index("band")
    return rows.set_column(place, "band", rows["band"].fill_null(TOP))
