"""Reads a finished run: the tables as DataFrames, a picture cell as an image, an original image by its id."""

from __future__ import annotations

import io
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from PIL import Image

from pipeline.errors import UserError, near_matches
from pipeline.files import is_local, run_folder, table_file
from pipeline.images import decode
from pipeline.shards import Place, Shard, read_bytes
from pipeline.tables import parquet_file, read_rows


def open_run(path: str | Path) -> Run:
    """The run in the folder `path`, which may be `s3://bucket/prefix`. Raises `UserError` if there is none.

    >>> run = open_run("runs/demo-demo")                                              # doctest: +SKIP
    >>> run.exemplars("block5.relu", 7).crop.map(picture)[0].show()                   # doctest: +SKIP
    """
    run = run_folder(path)
    if not str(path):
        known = sorted(str(entry.parent) for entry in Path("runs").glob("*/run.json"))
        there = f"There are {', '.join(known)}." if known else "`make mine` makes one."
        raise UserError(f"RUN is empty: say which run. {there}")
    if not (run / "run.json").is_file():
        beside = [entry.parent.name for entry in run.parent.glob("*/run.json")] if is_local(run) else []
        raise UserError(f"There is no finished run in {run}.{near_matches(run.name, beside)} `make mine` makes one.")
    return Run(run)


def picture(cell: dict[str, Any] | None) -> Image.Image | None:
    """The image in a cell of a `crop` or `visualization` column, or None."""
    if cell is None or cell.get("bytes") is None:
        return None
    return Image.open(io.BytesIO(cell["bytes"]))


class Run:
    """One run's tables; every table is also a plain Parquet file that any reader opens."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def record(self) -> dict[str, Any]:
        """`run.json`: what was mined, from what, with which settings."""
        record: dict[str, Any] = json.loads((self.path / "run.json").read_bytes())
        return record

    @cached_property
    def layers(self) -> pd.DataFrame:
        """`layers.parquet`, in the order in which the network runs them."""
        return read_rows(self.path / "layers.parquet").to_pandas()

    @cached_property
    def images(self) -> pd.DataFrame:
        """`images.parquet`, indexed by image_id."""
        return read_rows(self.path / "images.parquet").to_pandas().set_index("image_id", drop=False)

    @cached_property
    def shards(self) -> pd.DataFrame:
        """`shards.parquet`, indexed by shard."""
        return read_rows(self.path / "shards.parquet").to_pandas().set_index("shard", drop=False)

    def exemplars(self, layer: str, unit: int | None = None) -> pd.DataFrame:
        """The exemplars of one unit (or of a whole layer), best first."""
        return self._rows("exemplars", layer, unit)

    def units(self, layer: str, unit: int | None = None) -> pd.DataFrame:
        """The units of a layer (or one of them)."""
        return self._rows("units", layer, unit)

    def original(self, image_id: int) -> Image.Image:
        """The whole original image, read from its shard again. Raises `UserError` if it has gone."""
        row = self.images.loc[image_id]
        url = str(self.shards.loc[row["shard"], "url"])
        shard = Shard(int(row["shard"]), url, () if Path(url).is_dir() else None)
        return decode(read_bytes(shard, Place(row["path"], int(row["offset"]), int(row["nbytes"]))))

    def _rows(self, table: str, layer: str, unit: int | None) -> pd.DataFrame:
        path = table_file(self.path, table, layer)
        if not path.is_file():
            raise UserError(f"{self.path} has no layer {layer!r}.{near_matches(layer, self.layers['layer'])}")
        with parquet_file(path) as file:
            if unit is None:
                return file.read().to_pandas()
            column = file.schema_arrow.get_field_index("unit")
            groups = [
                group for group in range(file.num_row_groups)
                if (span := file.metadata.row_group(group).column(column).statistics) and span.min <= unit <= span.max
            ]  # fmt: skip
            rows = file.read_row_groups(groups) if groups else file.schema_arrow.empty_table()
            found = rows.filter(pa.compute.equal(rows["unit"], unit)).to_pandas()
            if found.empty and table == "units":
                raise UserError(f"Layer {layer!r} has no unit {unit}; it has {file.metadata.num_rows}.")
            return found
