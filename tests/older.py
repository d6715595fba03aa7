"""Runs as versions before wrote them: a crop in every exemplar's row, no pictures; histograms of fewer buckets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actmine.pipeline.exemplars.pictures import box_of, encode
from actmine.pipeline.readings.bucket_edges import middles
from actmine.pipeline.run import open_run
from actmine.pipeline.storage.parquet import image_column, write_table
from actmine.schemas.exemplars import EXEMPLARS
from actmine.schemas.units import UNITS


def as_before(run: Path, to: Path) -> Path:
    """A copy of a run in the folder `to`, each crop cut out of its original and stored in its row."""
    shutil.copytree(run, to)
    opened = open_run(run)
    for path in sorted((to / "exemplars").glob("*.parquet")):
        rows = pq.read_table(path)
        crops = [encode(opened.original(row["image_id"]).crop(box_of(row))) for row in rows.to_pylist()]
        place = EXEMPLARS.get_field_index("crop")
        rows = rows.set_column(place, EXEMPLARS.field("crop"), image_column(crops))
        write_table(path, EXEMPLARS, [pa.table(rows.columns, schema=EXEMPLARS)])
    for name in ("pictures", "crops"):
        (to / f"{name}.parquet").unlink()
    record = json.loads((to / "run.json").read_bytes())
    del record["pictures"]
    (to / "run.json").write_text(json.dumps(record))
    return to


def with_fewer_buckets(run: Path, to: Path) -> Path:
    """A copy of a run in the folder `to` whose histograms have 1,601 buckets: 25 octaves on either side of zero."""
    shutil.copytree(run, to)
    half = (2.0 ** np.arange(-12, 13)[:, None] * (1 + np.arange(32) / 32)).ravel()
    at = middles()
    bucket = 800 + np.sign(at).astype(int) * np.searchsorted(half, np.abs(at), side="right")
    for path in sorted((to / "units").glob("*.parquet")):
        rows = pq.read_table(path)
        for column in ("activation_histogram", "position_histogram"):
            its = [its and np.bincount(bucket, its, 1601).astype(int).tolist() for its in rows[column].to_pylist()]
            place, field = UNITS.get_field_index(column), UNITS.field(column)
            rows = rows.set_column(place, field, pa.array(its, field.type))
        write_table(path, UNITS, [pa.table(rows.columns, schema=UNITS)])
    return to
