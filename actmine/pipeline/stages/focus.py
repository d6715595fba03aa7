"""Adds the focus of the first exemplars of units with wide fields to a mined run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from actmine.pipeline.datasets.shards import Shard
from actmine.pipeline.engines.engine import Engine
from actmine.pipeline.exemplars.effective_field import EffectiveField, Focus, is_wide
from actmine.pipeline.exemplars.exemplar_parts import ExemplarPart, exemplar_parts
from actmine.pipeline.exemplars.focus_box import PERCENT
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.models import Network
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.progress import Progress, Silent
from actmine.pipeline.receptive_fields.receptive_field import Field, receptive_fields
from actmine.pipeline.stages.column_stage import ColumnStage, Units
from actmine.pipeline.storage.parquet import read_rows
from actmine.pipeline.words import FOCUSED
from actmine.pipeline.work import KernelWork
from actmine.schemas.exemplars import FOCUS

_OTHERWISE = "leave the focus out"


def focus_run(
    run: Path,
    shards: Mapping[int, Shard],
    network: Network,
    traced: Traced,
    layers: Sequence[Layer],
    engine: Engine,
    progress: Progress = Silent(),
    most: int = FOCUSED,
    units: Units | None = None,
) -> dict[str, Any]:
    """Writes the focus columns of the exemplars tables of a mined run; returns the run's record.

    Measured are the first `most` exemplars of each of `units` (by layer; None: of each unit) of those `layers` whose
    field is larger than half of the network's input in height or width. `layers` are such as were mined, `shards` the
    dataset's by number. What is measured already stays, and parts that an interrupted call had finished are kept.
    Raises `UserError` if an image has changed since the scan or the run cannot be written.
    """
    return _Focusing(run, shards, Subject(network, traced, layers), engine, progress, most, units).carry_out()


class _Focusing(ColumnStage[ExemplarPart, list[Focus]]):
    columns = FOCUS
    kept = pa.schema([("layer", pa.int32()), ("row", pa.int64()), *((side, pa.int32()) for side in FOCUS)])
    needs = ("unit", "image_id", "y", "x")
    title = "Measuring focus", "exemplars"

    def __init__(
        self, run: Path, shards: Mapping[int, Shard], subject: Subject, engine: Engine, progress: Progress, most: int,
        units: Units | None = None,
    ) -> None:  # fmt: skip
        super().__init__(("focus",), run, subject, engine, progress, {"percent": PERCENT}, units, most)
        self.shards = shards
        self.work: KernelWork[Focus] = KernelWork(subject, EffectiveField, "effective fields", _OTHERWISE)

    @cached_property
    def fields(self) -> dict[str, Field]:
        return receptive_fields(self.subject.traced, self.layers)

    def concerned(self, layer: Layer) -> bool:
        return is_wide(self.fields[layer.name])

    def parts(self) -> Iterator[ExemplarPart]:
        images = read_rows(self.run / "images.parquet")
        for group in self.groups():
            fields = {number: self.fields[self.layers[number].name] for number in group}
            yield from exemplar_parts(group, fields, images, self.shards)

    def rows(self, part: ExemplarPart, found: list[Focus]) -> list[dict[str, Any]]:
        return [_row(focus) for focus in found]


def _row(found: Focus) -> dict[str, int | None]:
    layer, row, box = found
    sides = (box.left, box.top, box.right, box.bottom) if box else (None,) * 4
    return {"layer": layer, "row": row, **dict(zip(FOCUS, sides, strict=True))}
