"""Adds what the first exemplars' crops are worth alone to a mined run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from actmine.pipeline.datasets.shards import Shard
from actmine.pipeline.engines.engine import Engine
from actmine.pipeline.exemplars.crop_check import CropCheckPart, CropCheckWork, Found, crop_parts
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.models import Network
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.progress import Progress, Silent
from actmine.pipeline.run import Run
from actmine.pipeline.stages.column_stage import ColumnStage, Units
from actmine.pipeline.stages.exemplar_stage import Done
from actmine.pipeline.storage.parquet import read_rows
from actmine.pipeline.words import CHECKED
from actmine.schemas.crops import BOX

COLUMN = "crop_activation"
_REDUCED = "reduced"


def check_crops(
    run: Path,
    network: Network,
    traced: Traced,
    layers: Sequence[Layer],
    engine: Engine,
    progress: Progress = Silent(),
    most: int = CHECKED,
    shards: Mapping[int, Shard] | None = None,
    units: Units | None = None,
) -> dict[str, Any]:
    """Writes `crop_activation` of the first `most` exemplars of units of a mined run; returns the run's record.

    `layers` are such as were mined, `units` some of each by name, None all. An image of which the run holds a reduced
    picture alone is read again, from `shards` by number or else from where the run says that they are; where it has
    gone the picture has to do. What is checked already stays, and parts that an interrupted call had finished are kept.
    Raises `UserError` if the run cannot be written.
    """
    return _Checking(Run(run, shards), Subject(network, traced, layers), engine, progress, most, units).carry_out()


class _Checking(ColumnStage[CropCheckPart, list[Found]]):
    columns = (COLUMN,)
    kept = pa.schema([("layer", pa.int32()), ("row", pa.int64()), (COLUMN, pa.float32()), (_REDUCED, pa.bool_())])
    needs = ("unit", "image_id", "y", "x", *BOX, "crop")
    title = "Checking crops", "crops"

    def __init__(
        self, opened: Run, subject: Subject, engine: Engine, progress: Progress, most: int, units: Units | None
    ) -> None:
        super().__init__(("crop_check",), opened.path, subject, engine, progress, {}, units, most)
        self.work, self.opened = CropCheckWork(subject), opened

    def concerned(self, layer: Layer) -> bool:
        return True

    def parts(self) -> Iterator[CropCheckPart]:
        images = read_rows(self.run / "images.parquet", ["image_id", "width", "height"])
        for group in self.groups():
            yield from crop_parts(group, images, self.opened.pictures)

    def rows(self, part: CropCheckPart, found: list[Found]) -> list[dict[str, Any]]:
        return [dict(zip(self.kept.names, its, strict=True)) for its in found]

    def write(self, done: Done) -> dict[str, Any]:
        reduced = int(pc.sum(done()[_REDUCED]).as_py() or 0)
        if reduced:
            self.progress.say(f"{reduced:,} crops were checked out of reduced pictures: their images have gone.")
        about = super().write(done)
        return {**about, "checked": about["found"], "reduced": self.before.get("reduced", 0) + reduced}
