"""All reads of a run's tables for the atlas: the run's layers, a layer's units, everything about one unit."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from actmine.pipeline.atlas.catalogue import COLUMNS, OF_TILES, Catalogue, unit_of
from actmine.pipeline.atlas.figures import percent, small
from actmine.pipeline.atlas.images import Images, named
from actmine.pipeline.atlas.links import Picture, segments
from actmine.pipeline.atlas.records import Drawing, Exemplar, Heat, Layer, Neighbour, Share, Unit, UnitPage, View
from actmine.pipeline.atlas.short_names import shortened
from actmine.pipeline.errors import UserError
from actmine.pipeline.exemplars.pictures import SMALL_SIDE
from actmine.pipeline.readings.statistics_options import BOTTOM, RANDOM, TOP
from actmine.pipeline.run import Run
from actmine.pipeline.run_tables import missing
from actmine.pipeline.sheets.drawing import number
from actmine.pipeline.storage.files import is_local, table_file
from actmine.pipeline.storage.reading import Reading
from actmine.schemas.chance import CHANCE, LEVEL
from actmine.schemas.crops import BOX
from actmine.schemas.exemplars import EXEMPLARS, FOCUS
from actmine.schemas.maps import PLACE
from actmine.schemas.neighbors import NEIGHBORS

MOST_LABELS = 12
CHANCE_COLUMNS = tuple(field.name for field in CHANCE)
KEPT_BYTES = 256 << 20
"""How much the columns of layers that were opened last take of memory (bytes)."""
_EXEMPLAR_COLUMNS = (*(name for name in EXEMPLARS.names if name != "crop"), "crop.path", "band")
_PLACE_COLUMNS = ("unit", "rank", "activation", "image_id", "y", "x", *BOX, *FOCUS, "crop.path")


class Queries:
    """A finished run, or `only` some of its layers, as records; may be used by many threads.

    Raises `UserError` where a table cannot be read.
    """

    def __init__(self, run: Run, only: Collection[str] | None = None) -> None:
        self.run = run
        self._only = only
        self.reading = Reading()
        self._lock = threading.Lock()
        self._units: OrderedDict[str, Catalogue] = OrderedDict()
        self._small_crops: dict[str, frozenset[int]] = {}

    @cached_property
    def version(self) -> str:
        """Names the state of the run: other pictures, another version."""
        return hashlib.sha256((self.run.path / "run.json").read_bytes()).hexdigest()[:12]

    @property
    def finished(self) -> str:
        """The day on which run.json was written last; empty on S3."""
        if "published" in self.run.record:
            return str(self.run.record["published"].get("finished", ""))
        if not is_local(self.run.path):
            return ""
        return date.fromtimestamp((self.run.path / "run.json").stat().st_mtime).isoformat()

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """The layers by name, in the order in which the network runs them. Raises `UserError` without their table."""
        if not self.reading.columns(self.run.path / "layers.parquet"):
            raise UserError(missing(self.run.path / "layers.parquet"))
        found = {row["layer"]: _layer(row) for row in self.table("layers.parquet")}
        return {name: layer for name, layer in found.items() if self._only is None or name in self._only}

    @cached_property
    def end(self) -> str:
        """The band that says what a unit is: the top, or the bottom where a run kept no other."""
        return BOTTOM if self.run.record.get("direction") == "min" else TOP

    @cached_property
    def true_boxes(self) -> bool:
        """Whether boxes are in pixels of the original images."""
        return bool(self.run.record.get("boxes") != "network input")

    @cached_property
    def pictured(self) -> bool:
        """Whether crops come out of pictures, or of originals where none are kept; before they were in exemplars/."""
        return "pictures" in self.run.record

    @cached_property
    def images(self) -> Images:
        """The images that exemplars name."""
        return Images(self.run.path, self.reading)

    @cached_property
    def segments(self) -> dict[str, str]:
        """The layers' names as parts of addresses."""
        return segments(self.layers)

    @cached_property
    def short(self) -> dict[str, str]:
        """The layers' names as they fit below a tile."""
        return shortened(self.run.layers["layer"].tolist())

    def table(self, name: str) -> list[dict[str, Any]]:
        """All rows of one of the small tables; none where there is no such file."""
        rows = self.reading.rows(self.run.path / name, sorted(self.reading.columns(self.run.path / name)))
        return [] if rows is None else rows.to_pylist()

    def units(self, layer: str) -> Catalogue:
        """All units of a layer, as columns; those of layers opened last stay in memory."""
        with self._lock:
            if layer in self._units:
                self._units.move_to_end(layer)
                return self._units[layer]
        rows = self._there("units", layer, self.reading.rows(self._file("units", layer), OF_TILES, keep=False))
        made = Catalogue(layer, rows, self.end)
        with self._lock:
            self._units[layer] = made
            while sum(each.nbytes for each in self._units.values()) > KEPT_BYTES and len(self._units) > 1:
                self._units.popitem(last=False)
        return made

    def unit(self, layer: str, unit: int) -> Unit | None:
        """One unit with all its numbers; None where the layer has no such number."""
        rows = self._there("units", layer, self.reading.rows(self._file("units", layer), COLUMNS, unit))
        return next((unit_of(layer, row, self.end) for row in rows.to_pylist()), None)

    def tile(self, layer: str, unit: int) -> Unit | None:
        """One unit with what a tile shows, at once where its layer is open; None where there is no such number."""
        with self._lock:
            known = self._units.get(layer)
        if known is None:
            return self.unit(layer, unit)
        place = known.place(unit)
        return None if place is None else known.records([place])[0]

    def crisp(self, unit: Unit) -> bool:
        """Whether the picture of a unit's tile is so small that its pixels are to be seen, see `small`."""
        layer = self.layers[unit.layer]
        if unit.drawn:
            return not layer.whole and max(layer.field) <= SMALL_SIDE
        if unit.layer not in self._small_crops:
            self._small_crops[unit.layer] = self._with_small_crops(unit.layer)
        return unit.unit in self._small_crops[unit.layer]

    def _with_small_crops(self, layer: str) -> frozenset[int]:
        """The units of a layer whose strongest crop is small."""
        try:
            rows = self.reading.rows(self._file("exemplars", layer), ("unit", "rank", *BOX), keep=False)
        except UserError:
            return frozenset()  # the pictures themselves will say what is wrong, and other layers' are not
        if rows is None or not self.true_boxes:
            return frozenset()
        first = rows.filter(pc.equal(rows["rank"], 0))
        boxes = zip(*(first[side].to_pylist() for side in BOX), strict=True)
        return frozenset(unit for unit, box in zip(first["unit"].to_pylist(), boxes, strict=True) if small(box))

    def page(self, layer: str, unit: int) -> UnitPage | None:
        """All that the run holds about a unit; None where the layer has no such number."""
        found = self.unit(layer, unit)
        if found is None:
            return None
        exemplars = self._with_views(layer, unit, self._with_heat(layer, unit, self.exemplars(layer, unit)))
        bands: dict[str, list[Exemplar]] = {}
        for each in exemplars:
            bands.setdefault(each.band, []).append(each)
        top = tuple(bands.pop(self.end, ()))
        spread = next(iter(self.of_unit("units", layer, unit, ["activation_histogram", "activation_quantiles"])), {})
        return UnitPage(
            found, top, tuple((name, tuple(rows)) for name, rows in bands.items()), self._drawings(layer, unit),
            self._facets(layer, unit), self._neighbours(layer, unit), self._directions(layer, unit),
            shares(top) if found.shared else (),
            self._labels(layer, unit) if found.best_label else (), tuple(spread.get("activation_histogram") or ()),
            tuple(spread.get("activation_quantiles") or ()),
        )  # fmt: skip

    def exemplars(self, layer: str, unit: int) -> list[Exemplar]:
        """A unit's exemplars of every band, the top ones first, best first."""
        rows = self._there(
            "exemplars", layer, self.reading.rows(self._file("exemplars", layer), _EXEMPLAR_COLUMNS, unit)
        )
        found = [self._exemplar(layer, row) for row in rows.to_pylist()]
        return sorted(found, key=lambda each: (_band_order(each.band), each.rank))

    def seen_at(self, layer: str, wanted: Collection[tuple[int, int]]) -> dict[tuple[int, int], Exemplar]:
        """Exemplars of a layer by unit and rank, of those `wanted` that it has: activation, places and crop alone."""
        units = sorted({unit for unit, _ in wanted})
        rows = self.reading.rows_of(self._file("exemplars", layer), _PLACE_COLUMNS, units)
        rows = self._there("exemplars", layer, rows)
        pairs = zip(rows["unit"].to_pylist(), rows["rank"].to_pylist(), strict=True)
        found = rows.take(pa.array([place for place, pair in enumerate(pairs) if pair in wanted], pa.int64()))
        return {(row["unit"], row["rank"]): self._exemplar(layer, row) for row in found.to_pylist()}

    def _file(self, table: str, layer: str) -> Path:
        return table_file(self.run.path, table, layer)

    def _there(self, table: str, layer: str, rows: pa.Table | None) -> pa.Table:
        """Rows of a table that every run has. Raises `UserError` where its file has gone."""
        if rows is None:
            raise UserError(missing(self._file(table, layer)))
        return rows

    def of_unit(self, table: str, layer: str, unit: int, columns: Sequence[str]) -> list[dict[str, Any]]:
        """A unit's rows of a layer's table; none where the run has no such table."""
        return _plain(self.reading.rows(self._file(table, layer), columns, unit))

    def _exemplar(self, layer: str, row: Mapping[str, Any]) -> Exemplar:
        focus = tuple(row.get(name) for name in FOCUS)
        known, band = self.true_boxes, row.get("band") or TOP
        seen = self.pictured or row["crop"] is not None
        return Exemplar(
            layer,
            row["unit"], row["rank"], band, row["activation"], row["image_id"], row.get("key") or "",
            named(row), None if row.get("y") is None else (row["y"], row["x"]),
            tuple(row[side] for side in BOX) if known else None,
            focus if known and None not in focus else None,  # type: ignore[arg-type]
            bool(row.get("clipped")), Picture(layer, row["unit"], "crop", (str(row["rank"]),)) if seen else None,
            row.get("crop_activation"), self.images.size(row["image_id"]), row.get("facet"),
            token=row.get("token") or "",
        )  # fmt: skip

    def _with_views(self, layer: str, unit: int, exemplars: list[Exemplar]) -> list[Exemplar]:
        views: dict[int, list[View]] = {}
        for method in self.run.record.get("views") or ():
            for row in self.of_unit("views", f"{layer}-{method}", unit, ["rank", "view.path"]):
                if row["view"] is not None:
                    picture = Picture(layer, unit, "view", (method, str(row["rank"])))
                    views.setdefault(row["rank"], []).append(View(method, picture))
        return [replace(each, views=tuple(views[each.rank])) if each.rank in views else each for each in exemplars]

    def _with_heat(self, layer: str, unit: int, exemplars: list[Exemplar]) -> list[Exemplar]:
        """With the maps of those that have one, where their place is known."""
        found = {}
        for row in self.of_unit("maps", layer, unit, ["rank", "image_id", *PLACE]):
            left, top, right, bottom = (row[side] for side in PLACE)
            if left is not None:
                picture = Picture(layer, unit, "heat", (str(row["rank"]),))
                found[row["rank"], row["image_id"]] = Heat(
                    picture, *(round(each, 2) for each in (left, top, right - left, bottom - top))
                )
        return [replace(each, heat=found.get((each.rank, each.image_id))) for each in exemplars]

    def _drawings(self, layer: str, unit: int) -> tuple[Drawing, ...]:
        columns = ["facet", "activation", "ratio", "rank"]
        found = []
        for preset in self.run.record.get("visualizations", {}):
            for row in self.of_unit("visualizations", f"{layer}-{preset}", unit, columns):
                facet = "none" if row["facet"] is None else str(row["facet"])
                picture = Picture(layer, unit, "preset", (preset, facet))
                found.append(Drawing(preset, row["facet"], picture, row["activation"], row["ratio"], row["rank"]))
        return tuple(found)

    def _facets(self, layer: str, unit: int) -> tuple[Drawing, ...]:
        columns = ["facet", "exemplars", "silhouette", "activation", "ratio", "preset"]
        return tuple(
            Drawing(
                row["preset"], row["facet"], Picture(layer, unit, "facet", (row["preset"], str(row["facet"]))),
                row["activation"], row["ratio"], None, row["silhouette"], tuple(row["exemplars"] or ()),
            )
            for row in self.of_unit("facets", layer, unit, columns)
        )  # fmt: skip

    def _neighbours(self, layer: str, unit: int) -> tuple[Neighbour, ...]:
        found = []
        for row in self.neighbors(layer, unit):
            other = row["neighbor_layer"]
            alike = self.tile(other, row["neighbor_unit"]) if other in self.layers else None
            if alike:
                found.append(Neighbour(alike, row["similarity"], *beyond_chance(row)))
        return tuple(found)

    def neighbors(self, layer: str, unit: int) -> list[dict[str, Any]]:
        """A unit's rows of neighbors.parquet, the most alike first."""
        rows = self.reading.rows(self.run.path / "neighbors.parquet", NEIGHBORS.names, unit)
        if rows is None or "layer" not in rows.column_names:
            return []
        return list(rows.filter(pc.equal(rows["layer"], layer)).sort_by("rank").to_pylist())

    def _directions(self, layer: str, unit: int) -> tuple[Neighbour, ...]:
        rows = self.of_unit("directions", layer, unit, ["rank", "neighbor_unit", "cosine", "chance"])
        found = []
        for row in sorted(rows, key=lambda row: int(row["rank"])):
            if alike := self.tile(layer, row["neighbor_unit"]):
                found.append(Neighbour(alike, row["cosine"], row["cosine"] > row["chance"], row["chance"]))
        return tuple(found)

    def _labels(self, layer: str, unit: int) -> tuple[Share, ...]:
        columns = ["label", "label_name", "images", "mean", "maximum", "correlation"]
        rows = [row for row in self.of_unit("labels", layer, unit, columns) if row.get("correlation") is not None]
        rows.sort(key=lambda row: -row["correlation"])
        return tuple(Share(named(row) or "", row["images"], row["mean"], row["maximum"]) for row in rows[:MOST_LABELS])


def beyond_chance(row: Mapping[str, Any]) -> tuple[bool | None, float | None]:
    """Whether a pair of units is more alike than by chance, and what chance reaches; None in tables made before."""
    known = row.get("q_value")
    return None if known is None else known < LEVEL, row.get("chance")


def shares(exemplars: tuple[Exemplar, ...]) -> tuple[Share, ...]:
    """How many of the exemplars that fire have which label, the commonest first; those of one alone say nothing."""
    counts = Counter(each.label for each in exemplars if each.activation > 0 and each.label is not None)
    return tuple(Share(label, count) for label, count in counts.most_common(MOST_LABELS) if count > 1)


def _layer(row: Mapping[str, Any]) -> Layer:
    def pair(first: str, second: str) -> tuple[int, int] | None:
        return None if row.get(first) is None or row.get(second) is None else (int(row[first]), int(row[second]))

    return Layer(
        row["layer"], int(row["units"]), row.get("kind") or "", pair("height", "width"),
        pair("rf_height", "rf_width") or (0, 0), bool(row.get("rf_global")), row.get("rf_note"),
        pair("stride_y", "stride_x"), _of_latents(row),
    )  # fmt: skip


def _of_latents(row: Mapping[str, Any]) -> str:
    """Of a layer of latents what they are of, and how well they make it again; empty for others."""
    if not row.get("dictionary_layer"):
        return ""
    said = f"Latents of a dictionary on {row['dictionary_layer']}"
    if (share := row.get("explained_variance")) is not None:
        low, high = row.get("explained_variance_low"), row.get("explained_variance_high")
        between = f"{percent(low)} to {percent(high)}, " if low is not None and high is not None else ""
        said += f", which explains {percent(share)} of its variance ({between}{row['reconstructed_images']} images)"
    if (active := row.get("latents_per_position")) is not None:
        said += f": {number(active)} are above zero at a position, {row['dead_units']:,} never fire"
        said += f", {row['dense_units']:,} fire at more than a tenth of all positions"
    return f"{said}."


def _plain(rows: pa.Table | None) -> list[dict[str, Any]]:
    return [] if rows is None else rows.to_pylist()


def _band_order(band: str) -> tuple[int, float, str]:
    """The top first, then percentiles from high to low, those at random, then the bottom."""
    percentile = band[1:] if band.startswith("p") else ""
    if percentile.replace(".", "", 1).isdigit():
        return 1, -float(percentile), band
    return {TOP: 0, RANDOM: 2}.get(band, 3), 0.0, band
