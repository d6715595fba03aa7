"""Adds what the first exemplars' crops are worth alone to a mined run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.datasets.shards import Shard
from pipeline.engines.engine import Engine
from pipeline.exemplars.crop_check import CropCheckPart, CropCheckWork, Found, crop_parts
from pipeline.exemplars.exemplar_parts import first_exemplars
from pipeline.network.layers import Layer, Traced
from pipeline.network.models import Network
from pipeline.network.subject import Subject
from pipeline.progress import Progress, Silent
from pipeline.run import Run
from pipeline.stages.exemplar_stage import Done, ExemplarStage
from pipeline.storage.added_columns import add_columns, filled
from pipeline.storage.files import table_file
from pipeline.storage.parquet import read_rows
from pipeline.words import CHECKED
from schemas.crops import BOX
from schemas.exemplars import EXEMPLARS

COLUMN = "crop_activation"
_REDUCED = "reduced"
_NEEDED = ["unit", "image_id", "y", "x", *BOX, "crop"]


def check_crops(
    run: Path,
    network: Network,
    traced: Traced,
    layers: Sequence[Layer],
    engine: Engine,
    progress: Progress = Silent(),
    most: int = CHECKED,
    shards: Mapping[int, Shard] | None = None,
) -> dict[str, Any]:
    """Writes `crop_activation` of the first `most` exemplars of each unit of a mined run; returns the run's record.

    `layers` are those that were mined. An image of which the run holds a reduced picture alone is read again, from
    `shards` by number or else from where the run says that they are; where it has gone the picture has to do. Parts
    that an interrupted call had finished are kept. Raises `UserError` if the run cannot be written.
    """
    return _Checking(Run(run, shards), Subject(network, traced, layers), engine, progress, most).carry_out()


class _Checking(ExemplarStage[CropCheckPart, Found]):
    kept = pa.schema([("row", pa.int64()), (COLUMN, pa.float32()), (_REDUCED, pa.bool_())])
    title = "Checking crops", "crops"

    def __init__(self, opened: Run, subject: Subject, engine: Engine, progress: Progress, most: int) -> None:
        super().__init__(("crop_check",), opened.path, subject, engine, progress, {"most": most})
        self.most, self.work, self.opened = most, CropCheckWork(subject), opened

    def in_place(self, about: dict[str, Any]) -> bool:
        return sum(filled(self._table(layer), COLUMN) for layer in self.layers) == int(about["checked"])

    def total(self) -> int:
        return sum(len(first_exemplars(self._table(layer), self.most, [])) for layer in self.layers)

    def parts(self) -> Iterator[CropCheckPart]:
        images = read_rows(self.run / "images.parquet", ["image_id", "width", "height"])
        for number, layer in enumerate(self.layers):
            rows = first_exemplars(self._table(layer), self.most, _NEEDED)
            yield from crop_parts(number, rows, images, self.opened.pictures.of)

    def rows(self, part: CropCheckPart, found: Found) -> list[dict[str, Any]]:
        return [{"row": row, COLUMN: value, _REDUCED: reduced} for row, value, reduced in found]

    def write(self, done: Done) -> dict[str, Any]:
        checked = reduced = 0
        for layer in self.layers:
            rows = done(layer)
            reduced += pc.sum(rows[_REDUCED]).as_py() or 0
            checked += add_columns(self._table(layer), EXEMPLARS, rows.drop_columns([_REDUCED]))
        if reduced:
            self.progress.say(f"{reduced:,} crops were checked out of reduced pictures: their images have gone.")
        return {"most": self.most, "checked": checked, "reduced": reduced}

    def _table(self, layer: Layer) -> Path:
        return table_file(self.run, "exemplars", layer.name)
