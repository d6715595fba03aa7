"""Adds the activation atlas of a layer to a mined run (Carter, Armstrong, Schubert, Johnson, Olah, Distill 2019).

One position of each image is drawn, its vector laid out on a map, the map gridded at several levels, and the mean
direction of each cell drawn by ascent. Each part is kept as it is done, so that an interrupted call goes on.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from actmine.pipeline import record
from actmine.pipeline.activation_atlas.crops import crops
from actmine.pipeline.activation_atlas.directions import Directions
from actmine.pipeline.activation_atlas.grid import cells_at, cells_of, fitted_sides, on_map
from actmine.pipeline.activation_atlas.labels import label_columns
from actmine.pipeline.activation_atlas.objective import LEAST, POWER, Aligned
from actmine.pipeline.activation_atlas.points import Points, places_of, point_table
from actmine.pipeline.activation_atlas.positions import DRAWN, DrawnPositions
from actmine.pipeline.ascent.ascend import Visualization, budget, check_channels
from actmine.pipeline.ascent.recipe import Comparing, Preset
from actmine.pipeline.datasets.shards import Shard
from actmine.pipeline.engines.engine import Engine
from actmine.pipeline.errors import UserError
from actmine.pipeline.naming import holds
from actmine.pipeline.network.dictionary_layers import PATCH, latents_of
from actmine.pipeline.network.encoded import has_tokens
from actmine.pipeline.network.grids import grids
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.models import Network
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.progress import Progress, Silent
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields
from actmine.pipeline.relations.layout import LEAST as LEAST_LAID
from actmine.pipeline.relations.layout import NEIGHBORS, check_installed, directions, laid_out, neighbors_kept
from actmine.pipeline.relations.nearest import Nearest
from actmine.pipeline.run import Run
from actmine.pipeline.stages.spectrum import spectrum_of
from actmine.pipeline.storage.files import alone, remove_files, table_file
from actmine.pipeline.storage.fingerprint import fingerprint
from actmine.pipeline.storage.parquet import few_bytes, image_column, write_table
from actmine.pipeline.storage.seals import is_whole
from actmine.pipeline.storage.stage_store import StageStore
from actmine.pipeline.tables.label_tree import Tree
from actmine.pipeline.work import AscentBatch, AscentWork
from actmine.schemas.activation_atlas import NOTED, TABLES
from actmine.schemas.atlas_cells import CELLS
from actmine.schemas.atlas_crops import POINT_CROPS
from actmine.schemas.atlas_points import POINTS
from actmine.schemas.crops import BOX

_VERSION = 1  # of all that the tables depend on beside what is asked for
_CELLS_A_GROUP = 64
_LAID = pa.schema([("x", pa.float64()), ("y", pa.float64()), ("kept", pa.float64())])
_PICTURES = pa.schema(
    [("cell", pa.int32()), ("picture", pa.binary()), ("activation", pa.float32()), ("rank", pa.int32()),
     ("cosine", pa.float32()), ("seed", pa.int64()), ("attempts", pa.int32())]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class AtlasSettings:
    """Cells a side of each level (none: fitted), images at most, the fewest of a cell, and the seed of all draws."""

    sides: tuple[int, ...] = ()
    images: int = 100_000
    least: int = 4
    seed: int = 0


def make_activation_atlas(
    opened: Run,
    network: Network,
    traced: Traced,
    layer: Layer,
    shards: Sequence[Shard],
    preset: Preset,
    settings: AtlasSettings,
    engine: Engine,
    *,
    words: Sequence[str] = (),
    tree: Tree | None = None,
    progress: Progress = Silent(),
) -> dict[str, Any]:
    """Writes `atlas_points/`, `atlas_cells/` and `atlas_crops/` of a layer; returns what the run's record says of it.

    `shards` are those of the dataset that was mined, `words` name its labels where the shards do not, and `tree` is
    that of labels. What is there already by the same settings stays. Raises `UserError` for a layer of latents, a
    preset that cannot climb a direction, too few images, and where the run cannot be written.
    """
    check_installed()
    check_preset(preset)
    check_channels(network)
    if layer.latents is not None:
        raise UserError(f"{layer.name} is of latents: say LAYER={layer.own.name}, whose vectors they are made of.")
    making = _Making(opened, network, traced, layer, shards, preset, settings, engine, words, tree, progress)
    if not making.done():
        with alone(opened.path, progress.say):
            if not making.done():  # by whoever we waited for
                making.go()
    found: dict[str, Any] = record.read_record(opened.path)[NOTED][layer.name]
    return found


def check_preset(preset: Preset) -> None:
    """Raises `UserError` for a preset that climbs no direction: one that compares whole maps, or draws facets."""
    if isinstance(preset.objective, Comparing) or preset.references or preset.facets:
        raise UserError(
            f"PRESET={preset.name} makes pictures like exemplars of a unit, and a cell has none: say default or lucid."
        )


def share_of(images: int, most: int) -> float:
    """Which share of a dataset's images is drawn, so that there are about `most`."""
    return 1.0 if images <= most else most / images


class _Making:
    """One atlas under way: what is fixed from the start."""

    def __init__(
        self, opened: Run, network: Network, traced: Traced, layer: Layer, shards: Sequence[Shard], preset: Preset,
        settings: AtlasSettings, engine: Engine, words: Sequence[str], tree: Tree | None, progress: Progress,
    ) -> None:  # fmt: skip
        self.opened, self.run, self.network, self.traced, self.layer = opened, opened.path, network, traced, layer
        self.shards, self.preset, self.settings, self.engine = list(shards), preset, settings, engine
        self.words, self.tree, self.progress = words, tree, progress
        self.its = latents_of(traced, layer, PATCH if has_tokens(layer) else "")
        written = opened.record
        self.seen = int(written["counts"]["seen"])
        self.share = share_of(self.seen, settings.images)
        self.most_norm = float(written.get("ignore_norm", 0.0))
        positions = {
            "version": _VERSION, "layer": layer.name, "share": self.share, "seed": settings.seed,
            "ignore_norm": self.most_norm, "tokens": self.its.tokens, "neighbors": NEIGHBORS,
            **{name: written[name] for name in ("dataset_fingerprint", "weights_hash", "preprocessing")},
            "computes": written.get("computes"),
        }  # fmt: skip
        if engine.here.type != "cpu":
            positions["read_on"] = engine.here.type
        known = positions | {
            "sides": list(settings.sides), "least": settings.least, "preset": repr(preset),
            "device": engine.device.type, "tree": tree.fingerprint if tree else "", "words": list(words),
            "power": POWER, "least_cosine": LEAST,
        }  # fmt: skip
        self.known = fingerprint(known)
        state = self.run / "state"
        self.positions = StageStore(state / f"atlas-positions-{fingerprint(positions)}", DRAWN)
        self.layout = StageStore(state / f"atlas-layout-{fingerprint(positions)}", _LAID)
        drawn = fingerprint(known | {"memory": budget(engine.memory)})
        self.pictures = StageStore(state / f"atlas-drawn-{drawn}", _PICTURES)
        self.paths = {name: table_file(self.run, name, layer.name, new=True) for name in TABLES}

    def done(self) -> bool:
        """Whether the tables hold it all; then removes what a killed command left of its state."""
        about = record.read_record(self.run).get(NOTED, {}).get(self.layer.name, {})
        if about.get("fingerprint") != self.known or not all(map(is_whole, self.paths.values())):
            return False
        self.progress.say(f"{self.run} has this activation atlas of {self.layer.name} already.")
        remove_files((self.run / "state").glob("atlas-*"))
        return True

    def go(self) -> None:
        """Makes it, then writes the tables and the record."""
        start = time.perf_counter()
        points = self._points()
        sides = self.settings.sides or fitted_sides(len(points.rows), self.settings.least)
        layout, kept = self._laid_out(points.vectors)
        places = on_map(layout)
        cells = cells_of(places, sides, self.settings.least)
        if not cells:
            raise UserError(f"No cell has {self.settings.least} images: lower --least, or say coarser GRIDS.")
        its = Directions(cells, points.vectors)
        named = points.words(self.words)
        labels = label_columns(cells, points.labels, named, self.tree)
        drawn = self._drawn(its)
        of_cell = np.stack([cells_at(places, side) for side in sides], 1)
        where = places_of(points, self.its, self.fields[self.layer.name], self.grid, self.network.preprocessing)
        table = point_table(points, where, named, places, of_cell)
        self._forget()
        write_table(self.paths["atlas_points"], POINTS, [table])
        typical = [its.typical(cell) for cell in range(len(cells))]
        self._write_crops(points, table, np.unique(np.concatenate(typical)))
        write_table(self.paths["atlas_cells"], CELLS, self._cell_rows(its, points, typical, labels, drawn))
        self._record(points, kept, sides, its, labels, drawn, time.perf_counter() - start)
        remove_files((self.run / "state").glob("atlas-*"))

    def _points(self) -> Points:
        """The drawn positions of all shards, read where they are not kept yet."""
        drawing = DrawnPositions(
            self.network, self.traced, self.its, self.share, self.settings.seed, self.most_norm, self.engine.here
        )
        there, names = self.positions.parts(), [f"shard-{shard.number:07d}" for shard in self.shards]
        about = round(self.seen * self.share)
        with self.progress.stage("Reading positions", about, "images") as advance:
            for shard, name in zip(self.shards, names, strict=True):
                rows: list[dict[str, Any]] = []
                if name not in there:
                    for some in drawing.of_shard(shard):
                        rows += some
                        advance(len(some))
                    self.positions.commit(name, rows)
        members = dict(zip(self.opened.shards["shard"].tolist(), self.opened.shards["members"].tolist(), strict=True))
        points = Points.of(self.positions.rows(names), self.layer.units, members)
        if not len(points.rows):
            raise UserError(f"At no drawn position {self.layer.name} has a vector other than zero.")
        return points

    def _laid_out(self, vectors: np.ndarray) -> tuple[np.ndarray, float | None]:
        """The layout of the vectors `[N, 2]`, and the share of nearest vectors that are nearest on it too."""
        if "all" not in self.layout.parts():
            its = directions(vectors)
            near = Nearest(its).among(NEIGHBORS)[0] if len(its) >= LEAST_LAID else None
            found = laid_out(its, self.settings.seed, near, self.progress)
            kept = None if near is None else float(neighbors_kept(found, near).mean())
            self.layout.commit("all", [{"x": float(x), "y": float(y), "kept": kept} for x, y in found])
        rows = self.layout.rows(["all"])
        return np.stack([rows["x"].to_numpy(), rows["y"].to_numpy()], 1), rows["kept"][0].as_py()

    @cached_property
    def fields(self) -> Mapping[str, Any]:
        """The receptive field of the layer, by its name."""
        return receptive_fields(self.traced, [self.layer])

    @cached_property
    def grid(self) -> Any:
        """Where its positions lie in the image, if that is known."""
        return grids(self.traced, [self.layer]).get(self.layer.name)

    def _drawn(self, its: Directions) -> pa.Table:
        """The pictures of all cells, in their order, drawn where they are not kept yet."""
        objective = Aligned(torch.from_numpy(its.whitened), means=torch.from_numpy(its.means))
        preset = replace(self.preset, objective=objective)
        subject = Subject(self.network, self.traced, [self.layer])
        spectrum = spectrum_of(self.opened, self.network.preprocessing) if preset.spectrum else None
        work = AscentWork(subject, self.fields, preset, self.settings.seed, spectrum)
        before, parts = self.pictures.parts(), []
        with self.progress.stage("Drawing", len(its.cells), "cells") as advance:

            def todo() -> Iterator[AscentBatch]:
                for batch in work.batches(0, self.engine.here, self.engine.memory, range(len(its.cells))):
                    parts.append(_part(batch.units))
                    if parts[-1] in before:
                        advance(len(batch.units))
                    else:
                        yield batch

            for batch, drawn in self.engine.map(work, todo(), lambda tally: None):
                self.pictures.commit(_part(batch.units), [_row(item, its) for item in drawn])
                advance(len(batch.units))
        return self.pictures.rows(parts).sort_by("cell")

    def _forget(self) -> None:
        """From here on the tables hold some of each: nothing is said of them until they are whole again."""
        written = record.read_record(self.run)
        if written.get(NOTED, {}).pop(self.layer.name, None):
            record.write_record(self.run, written)

    def _write_crops(self, points: Points, table: pa.Table, chosen: np.ndarray) -> None:
        rows = points.rows.take(pa.array(chosen))
        boxes = table.take(pa.array(chosen)).select(["image_id", *BOX])
        for name in boxes.column_names:
            rows = rows.append_column(name, boxes[name])
        how = self.network.preprocessing
        by_number = {shard.number: shard for shard in self.shards}
        held = set(self.opened.images.index)
        made = crops(rows.to_pylist(), by_number, how.upright, how.followed, held, self.progress)
        write_table(self.paths["atlas_crops"], POINT_CROPS, few_bytes(made, "crop"))

    def _cell_rows(
        self, its: Directions, points: Points, typical: Sequence[np.ndarray], labels: Mapping[str, pa.Array],
        drawn: pa.Table,
    ) -> Iterator[pa.Table]:  # fmt: skip
        """Rows of `CELLS`, a row group at a time."""
        largest = its.standing.largest
        activation = drawn["activation"].to_numpy()
        for begin in range(0, len(its.cells), _CELLS_A_GROUP):
            numbers = range(begin, min(begin + _CELLS_A_GROUP, len(its.cells)))
            cells, part = [its.cells[number] for number in numbers], slice(begin, numbers.stop)
            units = [its.units(number) for number in numbers]
            ratio = [
                float(reached) / float(most) if most > 0 and np.isfinite(reached) else None
                for reached, most in zip(activation[part], largest[part], strict=True)
            ]
            its_drawn = drawn.slice(begin, len(cells))
            columns = {
                "layer": pa.array([self.layer.name] * len(cells), pa.string()),
                **{name: pa.array([getattr(cell, name) for cell in cells], pa.int32())
                   for name in ("level", "side", "row", "column")},
                "images": pa.array([len(cell.members) for cell in cells], pa.int32()),
                "mean": pa.array(list(its.means[part]), pa.list_(pa.float32())),
                "cosine_images": pa.array([its.cosines(number).mean() for number in numbers], pa.float32()),
                "cosine_all": pa.array(its.of_all[part], pa.float32()),
                "shown": pa.array([points.image_id[typical[number]] for number in numbers], pa.list_(pa.int64())),
                "units": pa.array([some.astype(np.int32) for some, _ in units], pa.list_(pa.int32())),
                "unit_mean": pa.array(
                    [its.means[number][some] for number, (some, _) in zip(numbers, units, strict=True)],
                    pa.list_(pa.float32()),
                ),
                "unit_above": pa.array([above.astype(np.float32) for _, above in units], pa.list_(pa.float32())),
                **{name: values.slice(begin, len(cells)) for name, values in labels.items()},
                "picture": image_column(its_drawn["picture"].combine_chunks()),
                "ratio": pa.array(ratio, pa.float64()),
                **{name: its_drawn[name] for name in ("activation", "rank", "cosine", "seed", "attempts")},
            }  # fmt: skip
            yield pa.table([columns[name] for name in CELLS.names], schema=CELLS)

    def _record(
        self, points: Points, kept: float | None, sides: Sequence[int], its: Directions, labels: Mapping[str, pa.Array],
        drawn: pa.Table, seconds: float,
    ) -> None:  # fmt: skip
        most = its.standing.largest
        reached = int(((drawn["activation"].to_numpy() >= most) & (most > 0)).sum())
        written = record.read_record(self.run)
        written[NOTED] = written.get(NOTED, {}) | {
            self.layer.name: {
                "fingerprint": self.known, "preset": self.preset.name, "seed": self.settings.seed, "sides": list(sides),
                "least": self.settings.least, "images": points.images, "without_direction": points.lost,
                "positions": len(points.rows), "cells": len(its.cells), "reached": reached,
                "with_ratio": int((most > 0).sum()), "first": int((drawn["rank"].fill_null(-1).to_numpy() == 0).sum()),
                "ranked": len(drawn) - drawn["rank"].null_count, "named": named_cells(labels),
                "shrinkage": round(its.shrinkage, 6),
                "neighbors": NEIGHBORS, "neighbors_kept": None if kept is None else round(kept, 4),
                "neighbors_chance": None if kept is None else round(NEIGHBORS / (len(points.rows) - 1), 4),
                "seconds": round(seconds, 3),
            }
        }  # fmt: skip
        record.write_record(self.run, written)


def named_cells(labels: Mapping[str, pa.Array]) -> int:
    """Of how many cells a label may be named."""
    names = ("label_q", "label_share", "label_chance")
    return int(holds(*(labels[name].to_numpy(zero_copy_only=False).astype(float) for name in names)).sum())


def _part(cells: Sequence[int]) -> str:
    return f"cells-{cells[0]:06d}-{fingerprint({'cells': list(cells)})}"


def _row(item: Visualization, its: Directions) -> dict[str, Any]:
    """A drawn picture as a row of `_PICTURES`: its readings are projections on all directions, then cosines."""
    projections, cosines = np.split(item.readings, 2)
    data = io.BytesIO()
    Image.fromarray(item.picture).save(data, "PNG")
    return {
        "cell": item.unit, "picture": data.getvalue(), "activation": float(projections[item.unit]),
        "rank": its.rank(item.unit, projections), "cosine": float(cosines[item.unit]), "seed": item.seed,
        "attempts": item.attempts,
    }  # fmt: skip
