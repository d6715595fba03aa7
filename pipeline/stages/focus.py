"""Adds the focus of the first exemplars of units with wide fields to a mined run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.datasets.shards import Shard
from pipeline.engines.engine import Engine
from pipeline.exemplars.effective_field import EffectiveField, Focus, is_wide
from pipeline.exemplars.exemplar_parts import ExemplarPart, exemplar_parts, first_exemplars
from pipeline.exemplars.focus_box import PERCENT
from pipeline.network.layers import Layer, Traced
from pipeline.network.models import Network
from pipeline.network.subject import Subject
from pipeline.progress import Progress, Silent
from pipeline.receptive_fields.receptive_field import Field, receptive_fields
from pipeline.stages.exemplar_stage import Done, ExemplarStage
from pipeline.storage.added_columns import add_columns, filled, has_columns
from pipeline.storage.files import table_file
from pipeline.storage.parquet import read_rows
from pipeline.words import FOCUSED
from pipeline.work import KernelWork
from schemas.exemplars import EXEMPLARS, FOCUS

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
) -> dict[str, Any]:
    """Writes the focus columns of the exemplars tables of a mined run; returns the run's record.

    Measured are the first `most` exemplars of each unit of those `layers` whose field is larger than half of the
    network's input in height or width. `layers` are such as were mined, `shards` the dataset's by number.
    Parts that an interrupted call had finished are kept. Raises `UserError` if an image has changed since the scan
    or the run cannot be written.
    """
    return _Focusing(run, shards, Subject(network, traced, layers), engine, progress, most).carry_out()


class _Focusing(ExemplarStage[ExemplarPart, list[Focus]]):
    kept = pa.schema([("row", pa.int64()), *((side, pa.int32()) for side in FOCUS)])
    title = "Measuring focus", "exemplars"

    def __init__(
        self, run: Path, shards: Mapping[int, Shard], subject: Subject, engine: Engine, progress: Progress, most: int
    ) -> None:
        super().__init__(("focus",), run, subject, engine, progress, {"most": most, "percent": PERCENT})
        self.subject, self.shards, self.most = subject, shards, most
        self.work: KernelWork[Focus] = KernelWork(subject, EffectiveField, "effective fields", _OTHERWISE)

    def in_place(self, about: dict[str, Any]) -> bool:
        tables = (self._table(layer) for layer in self.layers)
        return sum(filled(table, FOCUS[0]) for table in tables) == int(about["found"])

    @cached_property
    def fields(self) -> dict[str, Field]:
        return receptive_fields(self.subject.traced, self.layers)

    @cached_property
    def wanted(self) -> dict[int, pa.Table]:
        """The exemplars to measure of each layer with wide fields, by its number: row, unit, image_id, y, x."""
        return {
            number: first_exemplars(self._table(layer), self.most, ["unit", "image_id", "y", "x"])
            for number, layer in enumerate(self.layers) if is_wide(self.fields[layer.name])
        }  # fmt: skip

    def total(self) -> int:
        return sum(len(rows) for rows in self.wanted.values())

    def parts(self) -> Iterator[ExemplarPart]:
        images = read_rows(self.run / "images.parquet")
        for number, rows in self.wanted.items():
            size = self.work.kernel_size(number, self.engine.here, self.engine.memory)
            yield from exemplar_parts(number, self.fields[self.layers[number].name], size, rows, images, self.shards)

    def rows(self, part: ExemplarPart, found: list[Focus]) -> list[dict[str, Any]]:
        return [_row(focus) for focus in found]

    def write(self, done: Done) -> dict[str, Any]:
        found = sum(add_columns(self._table(layer), EXEMPLARS, done(layer)) for layer in self._stale())
        return {
            "most": self.most, "percent": PERCENT, "layers": len(self.wanted), "measured": self.total(), "found": found,
        }  # fmt: skip

    def _stale(self) -> list[Layer]:
        """The layers whose tables are to write: those measured, and those of a version before, without the columns."""
        return [
            layer for number, layer in enumerate(self.layers)
            if number in self.wanted or not has_columns(self._table(layer), *FOCUS)
        ]  # fmt: skip

    def _table(self, layer: Layer) -> Path:
        return table_file(self.run, "exemplars", layer.name)


def _row(found: Focus) -> dict[str, int | None]:
    row, box = found
    sides = (box.left, box.top, box.right, box.bottom) if box else (None,) * 4
    return {"row": row, **dict(zip(FOCUS, sides, strict=True))}
