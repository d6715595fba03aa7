"""`pictures.parquet` and `crops.parquet`: what was kept of the winning images, image by image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from actmine.pipeline.exemplars.crops import KEPT
from actmine.pipeline.storage.files import remove_files
from actmine.pipeline.storage.parquet import few_bytes, image_column, read_arrow, write_table
from actmine.schemas.crops import CROPS
from actmine.schemas.pictures import PICTURES


def write_pictures(run: Path, paths: Sequence[Path]) -> None:
    """Writes both tables from the files of all parts, in the order of the images; without any there are no tables.

    The files are mapped into memory. Raises `UserError` if one of them is damaged.
    """
    if not paths:
        remove_files([run / "pictures.parquet", run / "crops.parquet"])
        return
    write_table(run / "crops.parquet", CROPS, few_bytes(_rows(paths, CROPS, "crop"), "crop"))
    write_table(run / "pictures.parquet", PICTURES, few_bytes(_rows(paths, PICTURES, "picture"), "picture"))


def _rows(paths: Sequence[Path], schema: pa.Schema, column: str) -> Iterator[pa.Table]:
    """Of the files the rows that belong to a table: crops have a box."""
    for path in paths:
        for batch in read_arrow(path, KEPT).to_batches():
            is_crop = pc.is_valid(batch["left"])
            rows = pa.Table.from_batches([batch.filter(is_crop if column == "crop" else pc.invert(is_crop))])
            columns = {name: rows[name] for name in schema.names if name != column}
            columns[column] = image_column(rows["picture"].combine_chunks())
            yield pa.table([columns[name] for name in schema.names], schema=schema)
