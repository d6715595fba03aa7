"""Adds visualizations to a mined run: ascent in batches, each committed as it is done; several presets side by side."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from actmine.pipeline import record
from actmine.pipeline.ascent.ascend import Visualization, budget, check_channels
from actmine.pipeline.ascent.own_exemplars import originals_gone
from actmine.pipeline.ascent.recipe import Preset
from actmine.pipeline.datasets.shards import Shard
from actmine.pipeline.engines.engine import Engine
from actmine.pipeline.engines.local import LocalEngine
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.models import Network
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.progress import Progress, Silent
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields
from actmine.pipeline.run import Run
from actmine.pipeline.stages.ranking import COLUMNS, Ranking
from actmine.pipeline.stages.spectrum import spectrum_of
from actmine.pipeline.storage.files import alone, remove_files, safe_name, table_file
from actmine.pipeline.storage.fingerprint import fingerprint
from actmine.pipeline.storage.parquet import read_rows
from actmine.pipeline.storage.stage_store import StageStore
from actmine.pipeline.tables.facet_table import add_facets
from actmine.pipeline.tables.visualization_tables import DRAWN, LayerPictures, counts
from actmine.pipeline.work import AscentBatch, AscentWork


def visualize_run(
    run: Path,
    network: Network,
    traced: Traced,
    layers: Sequence[Layer],
    preset: Preset,
    device: torch.device,
    *,
    units: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    progress: Progress = Silent(),
    engine: Engine | None = None,
    shards: Mapping[int, Shard] | None = None,
) -> dict[str, Any]:
    """Draws `units` of `layers` (by name; None: all of them) by `preset`; returns the run's record.

    Their rows of `visualizations/` are added or replaced, and the units table shows them; those of other units and
    presets stay. What is there already by the same recipe is not drawn again. `engine` does the work, this process on
    `device` if there is none; of an `engine` the device counts that it has. Batches that an interrupted call had
    finished are kept. Images that a preset needs are read from `shards` by number, or else from where the run says that
    they are. Raises `UserError` if the run cannot be written.
    """
    check_channels(network)
    chosen = {layer.name: list(range(layer.units) if units is None else units[layer.name]) for layer in layers}
    subject = Subject(network, traced, [layer for layer in layers if chosen[layer.name]])
    drawing = _Drawing(Run(run, shards), subject, preset, seed, chosen, engine or LocalEngine(device), progress)
    if not drawing.done():
        with alone(run, progress.say):
            if not drawing.done():  # by whoever we waited for
                drawing.go()
    return record.read_record(run)


class _Drawing:
    """One drawing under way: what is fixed from the start."""

    def __init__(
        self,
        opened: Run,
        subject: Subject,
        preset: Preset,
        seed: int,
        units: Mapping[str, Sequence[int]],
        engine: Engine,
        progress: Progress,
    ) -> None:
        self.opened, self.run = opened, opened.path
        self.subject, self.layers, self.units = subject, subject.layers, units
        self.preset, self.seed, self.engine, self.progress = preset, seed, engine, progress
        known = {
            "mined": record.read_record(self.run)["fingerprint"], "preset": repr(preset), "seed": seed,
            "device": engine.device.type,
        }  # fmt: skip
        self.recipe = fingerprint(known)
        self.store = StageStore(
            self.run / "state" / f"ascent-{fingerprint(known | {'memory': budget(engine.memory)})}", DRAWN
        )

    def done(self) -> bool:
        """Whether the tables hold and show it all; then removes what a killed command left of its state."""
        if self.preset.name not in record.read_record(self.run).get("visualizations", {}):
            return False
        if any(
            self._missing(layer) or not self._pictures(layer).shown(self.units[layer.name]) for layer in self.layers
        ):
            return False
        self.progress.say(f"{self.run} has these visualizations already.")
        try:
            remove_files((self.run / "state").glob("ascent-*"))
        except UserError as error:
            self.progress.say(f"It holds state that is of no use any more. {error}")
        return True

    def go(self) -> None:
        """Draws what is missing, layer by layer into the tables, then writes the record."""
        start = time.perf_counter()
        written = record.read_record(self.run)
        if written.get("visualizations", {}).pop(self.preset.name, None):
            record.write_record(self.run, written)  # from here on the tables hold some of each
        missing = [self._missing(layer) for layer in self.layers]
        self._draw(missing)
        counted = counts(self.run, written["layers"], self.preset.name)
        written["visualizations"] = written.get("visualizations", {}) | {
            self.preset.name: {
                "recipe": self.recipe, "seed": self.seed, **counted, "drawn": sum(map(len, missing)),
                "seconds": round(time.perf_counter() - start, 3),
            }
        }  # fmt: skip
        record.write_record(self.run, written)
        remove_files((self.run / "state").glob("ascent-*"))

    def _draw(self, missing: Sequence[Sequence[int]]) -> None:
        fields = receptive_fields(self.subject.traced, self.layers) if any(missing) else {}
        wanted = self.preset.spectrum and any(missing)
        spectrum = spectrum_of(self.opened, self.subject.network.preprocessing) if wanted else None
        work = AscentWork(self.subject, fields, self.preset, self.seed, spectrum)
        if self.preset.references and any(missing) and originals_gone(self.opened):
            self.progress.say("Images of this run have gone: exemplars come out of reduced pictures.")
        before = self.store.parts()
        parts: list[list[str]] = [[] for _ in self.layers]
        left = [len(units) for units in missing]
        ranking: dict[int, Ranking] = {}
        with self.progress.stage("Drawing", sum(left), "units") as advance:

            def finish(batch: AscentBatch) -> None:
                layer = self.layers[batch.layer]
                left[batch.layer] -= len(batch.units)
                parts[batch.layer].append(_part(layer, batch.units))
                advance(len(batch.units), note=layer.name)
                if not left[batch.layer]:
                    rows = self.store.rows(parts[batch.layer])
                    if self.preset.facets:
                        add_facets(self.run, layer.name, self.preset.name, rows)
                    self._pictures(layer).add(rows, self.recipe)
                    self._show(layer)

            def todo() -> Iterator[AscentBatch]:
                for number, layer in enumerate(self.layers):
                    if not missing[number]:
                        self._show(layer)
                        continue
                    for batch in work.batches(number, self.engine.here, self.engine.memory, missing[number]):
                        if _part(layer, batch.units) in before:
                            finish(batch)
                        else:
                            yield work.with_exemplars(batch, self.opened)

            for batch, drawn in self.engine.map(work, todo(), lambda tally: None):
                layer = self.layers[batch.layer]
                if batch.layer not in ranking:
                    ranking = {batch.layer: Ranking(read_rows(table_file(self.run, "units", layer.name), [*COLUMNS]))}
                self.store.commit(_part(layer, batch.units), [_row(item, ranking[batch.layer]) for item in drawn])
                finish(batch)

    def _pictures(self, layer: Layer) -> LayerPictures:
        others = record.read_record(self.run).get("visualizations", {})
        return LayerPictures(self.run, layer.name, self.preset.name, others)

    def _missing(self, layer: Layer) -> list[int]:
        """The units of a layer that this recipe has not drawn yet."""
        drawn = self._pictures(layer).drawn(self.recipe)
        return [unit for unit in self.units[layer.name] if unit not in drawn]

    def _show(self, layer: Layer) -> None:
        pictures, units = self._pictures(layer), self.units[layer.name]
        if not pictures.shown(units):
            pictures.show(units)


def _part(layer: Layer, units: Sequence[int]) -> str:
    """What the state calls a batch."""
    return f"{safe_name(layer.name)}-{fingerprint({'units': list(units)})}"


def _row(item: Visualization, ranking: Ranking) -> dict[str, Any]:
    return {
        "unit": item.unit, "facet": item.facet, "picture": _png(item), "activation": item.activation,
        "rank": ranking.rank(item.unit, item.readings), "seed": item.seed, "attempts": item.attempts,
        "exemplars": None if item.facet is None else item.exemplars, "silhouette": item.silhouette,
    }  # fmt: skip


def _png(item: Visualization) -> bytes:
    data = io.BytesIO()
    Image.fromarray(item.picture).save(data, "PNG")
    return data.getvalue()
