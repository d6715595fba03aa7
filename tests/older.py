"""A run as the version before wrote it: a crop in every exemplar's row, no pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.exemplars.pictures import box_of, encode
from pipeline.run import open_run
from pipeline.storage.parquet import image_column, write_table
from schemas.exemplars import EXEMPLARS


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
