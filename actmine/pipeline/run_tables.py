"""The tables of a finished run as DataFrames."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa

from actmine.pipeline.checked_record import Record, parsed
from actmine.pipeline.errors import UserError, first_line, near_matches
from actmine.pipeline.notes import Notes
from actmine.pipeline.readings.statistics_options import BOTTOM, RANDOM, TOP, band_name
from actmine.pipeline.run_maxima import RunMaxima
from actmine.pipeline.spoken import LEFT_OPEN, command
from actmine.pipeline.storage.files import readable_name, table_file
from actmine.pipeline.storage.parquet import parquet_file, read_rows
from actmine.pipeline.unit_maps import MAP_FILES, is_fresh
from actmine.pipeline.words import MapOf
from actmine.schemas.activation_atlas import NOTED
from actmine.schemas.maps import MAPS
from actmine.schemas.views import VIEWS

_AGAIN = "Delete the run.json of its run and mine it again."


class Mapped(NamedTuple):
    """An activation atlas: `points`, a row per drawn position; `cells`, a row per cell, by level, row and column."""

    points: pd.DataFrame
    cells: pd.DataFrame


class Tables:
    """One run's record and tables; every table is also a plain Parquet file that any reader opens."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def record(self) -> Record:
        """`run.json`: what was mined, from what, with which settings. Raises `UserError` where it cannot be read."""
        file = self.path / "run.json"
        try:
            return parsed(file.read_bytes(), file)
        except OSError as error:
            raise UserError(f"{file} cannot be read ({error.strerror or first_line(error)}).") from error

    @cached_property
    def layers(self) -> pd.DataFrame:
        """`layers.parquet`, in the order in which the network runs them."""
        return self._whole("layers").to_pandas()

    @cached_property
    def images(self) -> pd.DataFrame:
        """`images.parquet`, indexed by image_id."""
        return self._whole("images").to_pandas().set_index("image_id", drop=False)

    @cached_property
    def shards(self) -> pd.DataFrame:
        """`shards.parquet`, indexed by shard."""
        return self._whole("shards").to_pandas().set_index("shard", drop=False)

    def at(self, layer: str) -> int:
        """The number of a layer, its row of `layers`. Raises `UserError` for one that the run does not have."""
        names = self.layers["layer"].tolist()
        if layer not in names:
            raise UserError(f"{self.path} has no layer {layer!r}.{near_matches(layer, names)}")
        return names.index(layer)

    def exemplars(self, layer: str, unit: int | None = None, band: str = "") -> pd.DataFrame:
        """The exemplars of one unit (or of a whole layer), best first.

        `band`: bottom, say, or p50; empty means those at the first end that the run kept, usually top.
        """
        rows = self._rows("exemplars", layer, unit)
        if "band" not in rows:  # of a version before
            return rows
        known = rows["band"].fillna(self.bands[0])  # null in tables of a version before
        return rows[known == (band or self.bands[0])].reset_index(drop=True)

    @property
    def bands(self) -> list[str]:
        """Which kinds of exemplars the run holds, by what `exemplars` calls them."""
        ends = {"max": [TOP], "min": [BOTTOM], "both": [TOP, BOTTOM]}[self.record.get("direction", "max")]
        drawn = [RANDOM] if self.record.get("random_images") else []
        return [*ends, *map(band_name, self.record.get("bands", [])), *drawn]

    def units(self, layer: str, unit: int | None = None) -> pd.DataFrame:
        """The units of a layer (or one of them)."""
        return self._rows("units", layer, unit)

    def labels(self, layer: str, unit: int | None = None) -> pd.DataFrame:
        """Label statistics of the units of a layer (or of one of them). Raises `UserError` if there are no labels."""
        if not (self.path / "labels").is_dir():
            raise UserError(f"{self.path} has no table of labels: its images have none, or too many for its units.")
        return self._rows("labels", layer, unit)

    def maxima(self) -> RunMaxima:
        """The image activations of all images. Raises `UserError` if the run did not keep them."""
        return RunMaxima(self.path, self.layers)

    def views(self, layer: str, unit: int | None = None, method: str = "deconvnet") -> pd.DataFrame:
        """The views of one unit's exemplars (or of a whole layer's) by a method, best first; none where there are none.

        Raises `UserError` for a layer that the run does not have.
        """
        return self._rows("views", layer, unit, VIEWS, f"-{method}")

    def maps(self, layer: str, unit: int | None = None) -> pd.DataFrame:
        """The activation maps of one unit's first exemplars (or of a whole layer's); none where there are none.

        Raises `UserError` for a layer that the run does not have.
        """
        return self._rows("maps", layer, unit, MAPS)

    def activation_atlas(self, layer: str) -> Mapped:
        """The activation atlas of a layer: its drawn positions, and its cells with what was drawn for them.

        Raises `UserError` for a layer that the run does not have, or that has none.
        """
        self.at(layer)
        if layer not in self.record.get(NOTED, {}):
            how = command("activation-atlas", run=self.path, layer=layer)
            raise UserError(f"{self.path} has no activation atlas of {layer}: {how}")
        return Mapped(*(
            read_rows(table_file(self.path, name, layer)).to_pandas() for name in ("atlas_points", "atlas_cells")
        ))  # fmt: skip

    def neighbors(self, layer: str, unit: int | None = None) -> pd.DataFrame:
        """The units of the run most alike one of a layer (or all of them), best first; none without variance.

        Raises `UserError` for a unit that the run does not have, and where units were not compared.
        """
        return self._alike(self.path / "neighbors.parquet", layer, unit, "neighbours: mine it without --sketch 0")

    def map(self, by: str = "units") -> pd.DataFrame:
        """The map of units, or of images, a row each with its place.

        Raises `UserError` where there is none of what the run holds now.
        """
        if by not in {*MapOf}:
            raise UserError(f"There is no map of {by!r}: say {' or '.join(MapOf)}.")
        path = self.path / MAP_FILES[MapOf(by)]
        if not is_fresh(self.record, MapOf(by)) or not path.is_file():
            how = command("map", run=self.path, by="" if by == MapOf.units else by)
            raise UserError(f"{self.path} has no map of its {by}, or one of what it held before: {how}")
        return read_rows(path).to_pandas()

    def directions(self, layer: str, unit: int | None = None) -> pd.DataFrame:
        """The latents of a layer whose directions lie nearest one of it (or all of them), nearest first.

        Raises `UserError` for a unit that the layer does not have, and for a layer without `directions/`.
        """
        path = table_file(self.path, "directions", layer)
        return self._alike(path, layer, unit, f"directions/ of {layer}: it is no layer of a dictionary, or a wide one")

    def matches(self, other: str | Path, layer: str, unit: int | None = None) -> pd.DataFrame:
        """The units of another run, by its folder or that folder's name, most alike one of a layer, best first.

        Raises `UserError` for a unit that the run does not have, and where it was not compared with the other.
        """
        names = compared(self.record, other) or [readable_name(Path(str(other)).name)]
        if len(names) > 1:
            raise UserError(f"{self.path} has matches in several runs called {Path(str(other)).name}: say its folder.")
        path = self.path / "matches" / f"{names[0]}.parquet"
        how = command("compare", run=self.path, other=LEFT_OPEN)
        return self._alike(path, layer, unit, f"matches in {other}: {how}")

    def checkpoints(self, layer: str, unit: int | None = None) -> pd.DataFrame:
        """What a unit of a layer (or all of them) was at checkpoints of training, the oldest first.

        Raises `UserError` for a layer that the run does not have, and where its units were not followed.
        """
        if "checkpoints" not in self.record:
            how = command("compare", run=self.path, other=LEFT_OPEN, checkpoints=1)
            raise UserError(f"The units of {self.path} were not followed through checkpoints: {how}")
        return self._rows("checkpoints", layer, unit)

    def notes(self) -> pd.DataFrame:
        """What people have noted: a row per unit, layer or image with star, name, tags (a list), and notes in words.

        Raises `UserError` where they cannot be read.
        """
        rows = [
            {"layer": target.layer, "unit": target.unit, "image_id": target.image_id, "star": noted.star,
             "name": noted.name, "tags": list(noted.tags), "notes": "\n".join(note.text for note in noted.notes)}
            for target, noted in Notes(self.path).all().items()
        ]  # fmt: skip
        columns = ["layer", "unit", "image_id", "star", "name", "tags", "notes"]
        found = pd.DataFrame(rows, columns=columns)
        return found.astype({"unit": "Int64", "image_id": "Int64", "star": bool})

    def _alike(self, path: Path, layer: str, unit: int | None, what: str) -> pd.DataFrame:
        width = int(self.layers["units"].iloc[self.at(layer)])
        if unit is not None and not 0 <= unit < width:
            raise UserError(f"Layer {layer!r} has no unit {unit}; it has {width}.")
        if not path.is_file():
            raise UserError(f"{self.path} has no {what}.")
        rows = read_rows(path)
        wanted = pa.compute.equal(rows["layer"], layer)
        if unit is not None:
            wanted = pa.compute.and_(wanted, pa.compute.equal(rows["unit"], unit))
        return rows.filter(wanted).to_pandas()

    def _whole(self, table: str) -> pa.Table:
        path = self.path / f"{table}.parquet"
        try:
            return read_rows(path)
        except FileNotFoundError as error:
            raise UserError(missing(path)) from error

    def _rows(
        self, table: str, layer: str, unit: int | None, may_lack: pa.Schema | None = None, more: str = ""
    ) -> pd.DataFrame:  # fmt: skip
        """Rows of a layer's file, whose name says `more`; none of a table that a run `may_lack`, by its schema."""
        path = table_file(self.path, table, f"{layer}{more}")
        if not path.is_file():
            self.at(layer)
            if may_lack is not None:
                return may_lack.empty_table().to_pandas()
            raise UserError(missing(path))
        with parquet_file(path) as file:
            if unit is None:
                return file.read().to_pandas()
            column = file.schema_arrow.get_field_index("unit")
            groups = [
                group for group in range(file.num_row_groups)
                if (span := file.metadata.row_group(group).column(column).statistics) and span.min <= unit <= span.max
            ]  # fmt: skip
            rows = file.read_row_groups(groups) if groups else file.schema_arrow.empty_table()
            found = rows.filter(pa.compute.equal(rows["unit"], unit)).to_pandas()
            if found.empty and table == "units":
                raise UserError(f"Layer {layer!r} has no unit {unit}; it has {file.metadata.num_rows}.")
            return found


def compared(record: Mapping[str, Any], other: str | Path, moved: bool = True) -> list[str]:
    """What a run calls its matches in another, by that one's folder; by the folder's name if it may have `moved`."""
    known = {
        name: str(about["other"]) for name, about in record.get("matches", {}).items()
        if isinstance(about, Mapping) and "other" in about
    }  # fmt: skip
    same = [name for name, place in known.items() if absolute(place) == absolute(other)]
    return same or [name for name, place in known.items() if moved and Path(place).name == Path(other).name]


def absolute(run: str | Path) -> str:
    """Where a run is, whatever folder one is in."""
    return str(run) if "://" in str(run) else os.path.abspath(run)


def missing(path: Path) -> str:
    """Says that a table that every run has is not there."""
    return f"The table {path} is missing. {_AGAIN}"
