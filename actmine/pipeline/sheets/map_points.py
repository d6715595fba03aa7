"""The points of a map with all that they can be coloured and found by: columns, one entry per unit or image."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actmine.pipeline import naming
from actmine.pipeline.errors import UserError
from actmine.pipeline.run import Run
from actmine.pipeline.run_tables import missing
from actmine.pipeline.sheets.map_colours import KINDS
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.reading import Reading
from actmine.pipeline.unit_maps import MAP_FILES, is_fresh
from actmine.pipeline.words import MapOf
from actmine.schemas.image_map import IMAGE_MAP
from actmine.schemas.unit_map import UNIT_MAP

MEASURES = {
    "density": "density", "rate": "firing rate", "score": "interpretability", "tops": "units driven",
    "kept": "share of neighbours kept",
}  # fmt: skip
"""Numbers that points can have, and what they are called."""
_OF_UNITS = {"density": "density", "rate": "firing_rate", "score": "interpretability_exemplars"}
_LEAST_OF_A_REGION = 4
_TELLING = 0.05  # of all points: where the commonest labels have fewer, their colours show nothing
_MOST_REGIONS = 24
_COMPACT = 0.08  # of the map's extent: units of a label that lie further apart have no common place

Read = Callable[[Path, Sequence[str]], pa.Table | None]


@dataclass(frozen=True, slots=True)
class Region:
    """A label with the place that half of its points lie around."""

    label: int
    x: float
    y: float
    count: int


@dataclass(frozen=True, slots=True)
class Points:
    """Points `[N]` of a map at `x`, `y`; `number` is a unit's within its layer, or an image's.

    `layer` is a place in `layers`, `label` in `labels`, -1 for none; `measures` are float32, NaN where not known.
    """

    by: MapOf
    x: np.ndarray
    y: np.ndarray
    number: np.ndarray
    layers: tuple[str, ...]
    layer: np.ndarray
    labels: tuple[str, ...]
    label: np.ndarray
    measures: dict[str, np.ndarray]
    about: Mapping[str, Any] = field(default_factory=dict)
    drawn: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    """Of units: of which there is a visualization."""
    fires: np.ndarray = field(default_factory=lambda: np.empty(0, bool))

    def __len__(self) -> int:
        return len(self.x)

    def commonest(self, most: int) -> list[tuple[int, int]]:
        """The labels that most points have, each with how many, the commonest first."""
        counts = np.bincount(self.label[self.label >= 0], minlength=len(self.labels))
        order = np.argsort(-counts, kind="stable")[:most]
        return [(int(label), int(counts[label])) for label in order if counts[label]]

    @property
    def ways(self) -> list[tuple[str, str]]:
        """By what points can be coloured, what tells most of them apart first: names, and how they are called."""
        found = [("layer", "layer")] if self.by == MapOf.units else []
        found += [("label", "label")] if self.labels else []
        found += [(name, MEASURES[name]) for name in self.measures]
        held = [count for _, count in self.commonest(len(KINDS))]
        if found and found[0][0] == "label" and (held[0] < _LEAST_OF_A_REGION or sum(held) < _TELLING * len(self)):
            found.append(found.pop(0))
        return found

    def regions(self) -> list[Region]:
        """Labels whose points lie together, the commonest first, no two of them at one place."""
        extent = max(float(np.ptp(self.x)), float(np.ptp(self.y)), 1e-9) if len(self) else 1.0
        found: list[Region] = []
        for label, count in self.commonest(4 * _MOST_REGIONS):
            its = self.label == label
            x, y = float(np.median(self.x[its])), float(np.median(self.y[its]))
            apart = np.median(np.hypot(self.x[its] - x, self.y[its] - y))
            near = any(np.hypot(x - each.x, y - each.y) < _COMPACT * extent / 2 for each in found)
            if count >= _LEAST_OF_A_REGION and apart <= _COMPACT * extent and not near:
                found.append(Region(label, x, y, count))
        return found[:_MOST_REGIONS]


def points_of(run: Run, by: MapOf, only: Collection[str] | None = None, read: Read | None = None) -> Points:
    """The points of a run's map, of units those of `only` some layers; `read` reads columns of a file.

    Raises `UserError` where there is no such map, or where a table is missing or cannot be read.
    """
    read = read or _read
    if not is_fresh(run.record, by):
        run.map(by)  # which says why
    about = run.record["maps_of"][str(by)]
    return _units(run, about, only, read) if by == MapOf.units else _images(run, about, read)


def _units(run: Run, about: Mapping[str, Any], only: Collection[str] | None, read: Read) -> Points:
    rows = _there(read, run.path / MAP_FILES[MapOf.units], UNIT_MAP.names)
    names = [name for name in run.layers["layer"].tolist() if only is None or name in only]
    coded = rows["layer"].combine_chunks().dictionary_encode()
    numbers = {name: number for number, name in enumerate(names)}
    at = np.array([numbers.get(name, -1) for name in coded.dictionary.to_pylist()], np.int64)
    layer = at[coded.indices.to_numpy()] if len(rows) else np.empty(0, np.int64)
    shown = layer >= 0
    layer, unit = layer[shown], rows["unit"].to_numpy()[shown]
    said = np.full(len(unit), None, object)
    measures = {name: np.full(len(unit), np.nan, np.float32) for name in _OF_UNITS}
    drawn, fires = np.zeros(len(unit), bool), np.zeros(len(unit), bool)
    wanted = ["unit", "activation_max", *naming.COLUMNS, *_OF_UNITS.values(), "visualization.path"]
    for number, name in enumerate(names):
        its = np.flatnonzero(layer == number)
        if not len(its):
            continue
        table = _there(read, table_file(run.path, "units", name), wanted)
        of = np.full(int(max(table["unit"].to_numpy().max(initial=0), unit[its].max())) + 1, -1, np.int64)
        of[table["unit"].to_numpy()] = np.arange(len(table))
        places = of[unit[its]]
        its, places = its[places >= 0], places[places >= 0]
        words = (
            pc.if_else(pa.array(naming.held(table, kind)), naming.words(table, kind), None)
            for kind in naming.STATEMENTS
        )
        labels = pc.coalesce(*words).to_numpy(zero_copy_only=False)
        said[its] = labels[places]
        for measure, column in _OF_UNITS.items():
            measures[measure][its] = naming.numbers(table, column)[places]
        fires[its] = naming.numbers(table, "activation_max")[places] > 0
        if "visualization" in table.column_names:
            drawn[its] = table["visualization"].is_valid().to_numpy(zero_copy_only=False)[places]
    labels, label = _coded(said)
    measures["kept"] = rows["kept"].to_numpy(zero_copy_only=False)[shown].astype(np.float32)
    return Points(
        MapOf.units, rows["x"].to_numpy()[shown], rows["y"].to_numpy()[shown], unit, tuple(names), layer, labels, label,
        _known(measures), about, drawn, fires,
    )  # fmt: skip


def _images(run: Run, about: Mapping[str, Any], read: Read) -> Points:
    rows = _there(read, run.path / MAP_FILES[MapOf.images], IMAGE_MAP.names)
    images = _there(read, run.path / "images.parquet", ["image_id", "label", "label_name"])
    names = dict(zip(images["image_id"].to_pylist(), _labels_of(images), strict=True))
    numbers = rows["image_id"].to_numpy()
    labels, label = _coded(np.array([names.get(each) for each in numbers.tolist()], object))
    measures = {"tops": rows["tops"].to_numpy().astype(np.float32),
                "kept": rows["kept"].to_numpy(zero_copy_only=False).astype(np.float32)}  # fmt: skip
    return Points(
        MapOf.images, rows["x"].to_numpy(), rows["y"].to_numpy(), numbers, (), np.full(len(rows), -1, np.int64), labels,
        label, _known(measures), about,
    )  # fmt: skip


def _labels_of(rows: pa.Table) -> list[str | None]:
    names, numbers = (
        rows[name].to_pylist() if name in rows.column_names else [None] * len(rows) for name in ("label_name", "label")
    )
    return [naming.in_words(*each) or None for each in zip(names, numbers, strict=True)]


def _coded(said: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Words, each once, and for each entry which it is; -1 for none."""
    coded = pa.array(said, pa.string(), from_pandas=True).dictionary_encode()
    return tuple(coded.dictionary.to_pylist()), pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False).astype(
        np.int64
    )


def _known(measures: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those that any point has a value of, in the order of `MEASURES`."""
    return {name: measures[name] for name in MEASURES if name in measures and not np.isnan(measures[name]).all()}


def _there(read: Read, path: Path, columns: Sequence[str]) -> pa.Table:
    found = read(path, columns)
    if found is None:
        raise UserError(missing(path))
    return found


def _read(path: Path, columns: Sequence[str]) -> pa.Table | None:
    return Reading().rows(path, columns, keep=False)
