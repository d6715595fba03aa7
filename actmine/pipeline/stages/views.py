"""Adds views of the first exemplars of each unit to a mined run: the activation projected back to pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from actmine.pipeline import record
from actmine.pipeline.datasets.shards import Shard
from actmine.pipeline.engines.engine import Engine
from actmine.pipeline.errors import UserError
from actmine.pipeline.exemplars.exemplar_parts import ExemplarPart, exemplar_parts, first_exemplars
from actmine.pipeline.exemplars.projection import Projection, View
from actmine.pipeline.exemplars.view_colours import PERCENTILE
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.models import Network
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.progress import Progress, Silent
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields
from actmine.pipeline.stages.exemplar_stage import Done, ExemplarStage
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import read_rows
from actmine.pipeline.tables.view_tables import SEEN, LayerViews, check_method
from actmine.pipeline.words import PROJECTED
from actmine.pipeline.work import KernelWork
from actmine.schemas.views import INPUT_BOX

_OTHERWISE = "do without its views"


def view_run(
    run: Path,
    shards: Mapping[int, Shard],
    network: Network,
    traced: Traced,
    layers: Sequence[Layer],
    engine: Engine,
    progress: Progress = Silent(),
    *,
    method: str = "deconvnet",
    most: int = PROJECTED,
) -> dict[str, Any]:
    """Writes `views/` of the first `most` exemplars of each unit of `layers` that make it fire; returns the record.

    `shards` hold the images by number, as they were mined. What is there already by the same method and number stays,
    views of other methods and layers too. Parts that an interrupted call had finished are kept. Raises `UserError` for
    an unknown method, if an image has changed since the scan or the run cannot be written.
    """
    check_method(method)
    if traced.by == "modules":
        progress.say("It is followed by its modules: ReLUs that it calls as functions keep their own gradient.")
    return _Viewing(run, shards, Subject(network, traced, layers), engine, progress, method, most).carry_out()


class _Viewing(ExemplarStage[ExemplarPart, list[View]]):
    kept = SEEN
    title = "Projecting", "exemplars"

    def __init__(
        self, run: Path, shards: Mapping[int, Shard], subject: Subject, engine: Engine, progress: Progress, method: str,
        most: int,
    ) -> None:  # fmt: skip
        known = {"method": method, "most": most, "percentile": PERCENTILE}
        super().__init__(("views", method), run, subject, engine, progress, known)
        self.subject, self.shards, self.method, self.most = subject, shards, method, most
        measuring = partial(Projection, method=method)
        self.work: KernelWork[View] = KernelWork(subject, measuring, f"views by {method}", _OTHERWISE)

    def in_place(self, about: dict[str, Any]) -> bool:
        return not self.missing

    @property
    def missing(self) -> dict[int, pa.Table]:
        """The exemplars to project of each layer that lacks some, by its number: row, unit, rank, image_id, y, x."""
        return {
            number: rows for number, rows in self.wanted.items()
            if not self._views(self.layers[number]).complete(self.fingerprint, len(rows))
        }  # fmt: skip

    @cached_property
    def wanted(self) -> dict[int, pa.Table]:
        return {number: self._firing(layer) for number, layer in enumerate(self.layers)}

    def _firing(self, layer: Layer) -> pa.Table:
        columns = ["unit", "rank", "activation", "image_id", "y", "x"]
        try:
            rows = first_exemplars(table_file(self.run, "exemplars", layer.name), self.most, columns)
        except FileNotFoundError as error:
            raise UserError(
                f"{self.run} has no exemplars of {layer.name}: {error.filename or 'their table'} is missing. "
                "Delete the run.json of the run and mine it again."
            ) from error
        return rows.filter(pc.greater(rows["activation"], 0))

    @cached_property
    def todo(self) -> dict[int, pa.Table]:
        """What was missing when the work began."""
        return self.missing

    def total(self) -> int:
        return sum(len(rows) for rows in self.todo.values())

    def parts(self) -> Iterator[ExemplarPart]:
        images = read_rows(self.run / "images.parquet")
        fields = receptive_fields(self.subject.traced, [self.layers[number] for number in self.todo])
        for number, rows in self.todo.items():
            if len(rows):
                yield from exemplar_parts(
                    {number: rows}, {number: fields[self.layers[number].name]}, images, self.shards
                )  # fmt: skip

    def rows(self, part: ExemplarPart, found: list[View]) -> list[dict[str, Any]]:
        return [
            dict(zip(INPUT_BOX, view.box, strict=True))
            | {"row": view.row, "scale": view.scale, "picture": view.picture}
            for view in found
        ]

    def write(self, done: Done) -> dict[str, Any]:
        for number, rows in self.todo.items():
            layer = self.layers[number]
            self._views(layer).write(rows, done(layer), self.fingerprint)
        names = record.read_record(self.run)["layers"]
        counts = [LayerViews(self.run, name, self.method).count() for name in names]
        return {
            "most": self.most, "percentile": PERCENTILE, "layers": sum(map(bool, counts)), "views": sum(counts),
            "projected": self.total(),
        }  # fmt: skip

    def _views(self, layer: Layer) -> LayerViews:
        return LayerViews(self.run, layer.name, self.method)
