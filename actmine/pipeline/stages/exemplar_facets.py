"""Adds to a mined run which facet of its unit each exemplar belongs to, by what the network makes of its image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from actmine.pipeline import record
from actmine.pipeline.ascent.facets import MOST_FACETS, check_installed
from actmine.pipeline.datasets.shards import Shard
from actmine.pipeline.engines.engine import Engine
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.models import Network
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.progress import Progress, Silent
from actmine.pipeline.readings.statistics_options import TOP
from actmine.pipeline.run import Run
from actmine.pipeline.stages.embedding import (
    EmbeddingPart,
    Embeddings,
    EmbeddingWork,
    Features,
    embedding_parts,
    scanned_pictures,
)
from actmine.pipeline.stages.embedding_stage import EmbeddingStage
from actmine.pipeline.stages.exemplar_stage import Done, Step
from actmine.pipeline.stages.facet_work import FOUND, FacetPart, FacetTask, FacetWork, facet_parts, facet_rows
from actmine.pipeline.storage.added_columns import add_columns, has_columns
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import read_rows
from actmine.schemas.exemplars import EXEMPLARS
from actmine.schemas.units import UNITS

COLUMN, COUNT = "facet", "facets"
_OTHERWISE = "do without facets"


def facet_run(
    run: Run,
    network: Network,
    traced: Traced,
    layers: Sequence[Layer],
    engine: Engine,
    progress: Progress = Silent(),
    *,
    units: Mapping[str, Sequence[int]] | None = None,
    shards: Mapping[int, Shard] | None = None,
) -> dict[str, Any]:
    """Writes `facet` of the exemplars and `facets` of `units` of `layers` (by name; None: all); returns the record.

    The exemplars of a unit are those of the run's first band that make it fire. `shards` hold the images by number,
    where they are elsewhere than when they were mined. What is there already stays. Parts that an interrupted call had
    finished are kept. Raises `UserError` without scikit-learn, if an image has changed or the run cannot be written.
    """
    check_installed()
    chosen = {layer.name: list(range(layer.units) if units is None else units[layer.name]) for layer in layers}
    subject = Subject(network, traced, [layer for layer in layers if chosen[layer.name]])
    return _Faceting(run, subject, engine, progress, chosen, shards or run.shards_to_read).carry_out()


def late_layer(traced: Traced, names: Sequence[str]) -> Layer:
    """The last of a run's layers that has positions; the last of all where none has."""
    layers = [layer.own for layer in traced.choose(",".join(names))]
    return next((layer for layer in reversed(layers) if layer.height is not None), layers[-1])


class _Faceting(EmbeddingStage[list[int], FacetTask]):
    def __init__(
        self, run: Run, subject: Subject, engine: Engine, progress: Progress, units: Mapping[str, Sequence[int]],
        shards: Mapping[int, Shard],
    ) -> None:  # fmt: skip
        late = late_layer(subject.traced, run.record["layers"])
        super().__init__(("facets",), run.path, subject, engine, progress, {"by": late.name, "most": MOST_FACETS})
        self.units, self.shards, self.band, self.by = units, shards, run.bands[0], late.name
        self.work = EmbeddingWork(Subject(subject.network, subject.traced, [late]), Features, _OTHERWISE)

    def missing(self, layer: Layer) -> list[int]:
        counts = _column(self._units(layer), COUNT)
        return [unit for unit in self.units[layer.name] if counts[unit] is None]

    def task(self, unit: int, missing: list[int], rows: Mapping[str, np.ndarray], first: int) -> FacetTask:
        fires = rows["activation"] > 0 if self.band == TOP else rows["activation"] < 0
        its = np.flatnonzero(fires & (rows["band"] == self.band))
        return FacetTask(unit, tuple((first + its).tolist()), tuple(rows["image_id"][its].tolist()))

    def total(self) -> int:
        return len({image for tasks in self.todo.values() for task in tasks for image in task.images})

    def parts(self) -> Iterator[EmbeddingPart]:
        """Each image with the first layer that needs it."""
        images = read_rows(self.run / "images.parquet")
        seen: set[int] = set()
        for number, tasks in self.todo.items():
            new = {image for task in tasks for image in task.images} - seen
            seen |= new
            yield from embedding_parts(number, list(scanned_pictures(new, images, self.shards)))

    def write(self, done: Done) -> dict[str, Any]:
        work = FacetWork([layer.name for layer in self.layers])
        count = sum(map(len, self.todo.values()))
        found = self.take(Step("found", FOUND, ("Finding facets", "units"), count, work, self._found(done), facet_rows))
        for number, tasks in self.todo.items():
            self._write_layer(self.layers[number], tasks, found(self.layers[number]))
        names = record.read_record(self.run)["layers"]
        counts = [count for name in names for count in _column(table_file(self.run, "units", name), COUNT)]
        known = [count for count in counts if count]
        return {
            "by": self.by, "most": MOST_FACETS, "units": len(known), "several": sum(count > 1 for count in known),
        }  # fmt: skip

    def _found(self, done: Done) -> Iterator[FacetPart]:
        """Units of a layer once its images are embedded."""
        embeddings = Embeddings()
        for number, tasks in self.todo.items():
            embeddings.add(done(self.layers[number]))
            yield from facet_parts(number, tasks, embeddings)

    def _write_layer(self, layer: Layer, tasks: Sequence[FacetTask], found: pa.Table) -> None:
        facet, count = _column(self._exemplars(layer), COLUMN), _column(self._units(layer), COUNT)
        facets_of = dict(zip(found["unit"].to_pylist(), found["facets"].to_pylist(), strict=True))
        for task in tasks:
            facets = facets_of[task.unit]
            count[task.unit] = max(facets, default=-1) + 1
            for row, its in zip(task.rows, facets, strict=True):
                facet[row] = its
        _replace(self._exemplars(layer), EXEMPLARS, COLUMN, facet)
        _replace(self._units(layer), UNITS, COUNT, count)  # last: what says that the layer is done

    def _exemplars(self, layer: Layer) -> Path:
        return table_file(self.run, "exemplars", layer.name)

    def _units(self, layer: Layer) -> Path:
        return table_file(self.run, "units", layer.name)


def _column(path: Path, name: str) -> list[int | None]:
    """A column of a table; null in all rows where a version before has not got it."""
    rows = read_rows(path, [name] if has_columns(path, name) else ["unit"])
    values: list[int | None] = rows[name].to_pylist() if name in rows.column_names else [None] * len(rows)
    return values


def _replace(path: Path, schema: pa.Schema, name: str, values: Sequence[int | None]) -> None:
    column = pa.array(values, schema.field(name).type)
    add_columns(path, schema, pa.table({"row": pa.array(np.arange(len(values))), name: column}))
