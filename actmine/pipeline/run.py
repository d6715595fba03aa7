"""Reads a finished run: the tables as DataFrames, an exemplar's pixels, an image by its id."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image

from actmine.pipeline.checked_record import Record, checked, parsed
from actmine.pipeline.datasets.range_requests import public
from actmine.pipeline.datasets.reopened import is_elsewhere, reopened
from actmine.pipeline.datasets.shards import Place, Shard, read_bytes
from actmine.pipeline.errors import UserError, first_line, near_matches
from actmine.pipeline.exemplars.heat import ActivationMap, heat
from actmine.pipeline.exemplars.pictures import GONE, Original, Pictures, box_of
from actmine.pipeline.notes import Notes
from actmine.pipeline.preprocessing.images import decode
from actmine.pipeline.readings.statistics_options import BOTTOM, RANDOM, TOP, band_name
from actmine.pipeline.spoken import LEFT_OPEN, command
from actmine.pipeline.storage.files import is_local, local_copy, readable_name, run_folder, table_file
from actmine.pipeline.storage.parquet import parquet_file, read_rows
from actmine.pipeline.trust import FIX, is_own
from actmine.pipeline.unit_maps import MAP_FILES, is_fresh
from actmine.pipeline.words import MapOf
from actmine.schemas.activation_atlas import NOTED
from actmine.schemas.maps import MAPS
from actmine.schemas.views import VIEWS

_READ_AT_ONCE = 16
_AGAIN = "Delete the run.json of its run and mine it again."


def open_run(path: str | Path, trust: bool = False) -> Run:
    """The run in the folder `path`, which may be `s3://bucket/prefix`.

    With `trust`, addresses in the tables of someone else's run may be asked, and the code that it names imported.
    Raises `UserError` if there is none, or if its run.json is damaged.

    >>> run = open_run("runs/demo-demo")                                              # doctest: +SKIP
    >>> run.crop(run.exemplars("block5.relu", 7).iloc[0]).show()                      # doctest: +SKIP
    """
    run = run_folder(path)
    if not str(path):
        known = sorted(str(entry.parent) for entry in Path("runs").glob("*/run.json"))
        there = f"There are {', '.join(known)}." if known else f"`{command('mine')}` makes one."
        raise UserError(f"RUN is empty: say which run. {there}")
    if not (run / "run.json").is_file():
        beside = [entry.parent.name for entry in run.parent.glob("*/run.json")] if is_local(run) else []
        raise UserError(
            f"There is no finished run in {run}.{near_matches(run.name, beside)} `{command('mine')}` makes one."
        )
    opened = Run(run, trust=trust)
    checked(opened.record)
    return opened


def picture(cell: dict[str, Any] | None) -> Image.Image | None:
    """The image in a cell of a `picture`, `crop` or `visualization` column, or None."""
    if cell is None or cell.get("bytes") is None:
        return None
    return Image.open(io.BytesIO(cell["bytes"]))


class Run:
    """One run's tables; every table is also a plain Parquet file that any reader opens.

    Images are read again from `shards` by number, if none are given from where the run says that they are; elsewhere
    than on this machine only if the run is `trusted`.
    """

    def __init__(self, path: Path, shards: Mapping[int, Shard] | None = None, trust: bool = False) -> None:
        self.path, self._shards, self._trust = path, shards, trust
        self._places: dict[int, Original] = {}
        self.only_summed = False
        """Whether images of which no sum is known are not read again: any file of this machine could be meant."""

    @cached_property
    def record(self) -> Record:
        """`run.json`: what was mined, from what, with which settings. Raises `UserError` where it cannot be read."""
        file = self.path / "run.json"
        try:
            return parsed(file.read_bytes(), file)
        except OSError as error:
            raise UserError(f"{file} cannot be read ({error.strerror or first_line(error)}).") from error

    @cached_property
    def trusted(self) -> bool:
        """Whether the user says so, or has mined it."""
        return self._trust or is_own(self.path, self.record, self.shards["url"].tolist())

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
        return RunMaxima(self)

    def crop(self, row: Mapping[str, Any], sharp: bool = False) -> Image.Image | None:
        """What an exemplar, a row of `exemplars`, shows of its image; None where that is nowhere to be had.

        A box of more than half of an image comes out of its picture, which is reduced. If `sharp`, the original image
        is read again then, from its shard, and the picture enlarged where that has gone.
        """
        found = None if sharp else self.pictures.shown(row)
        return found or self.pictures.of(row).sharp()[0]

    def crops(self, rows: Sequence[Mapping[str, Any]], sharp: Sequence[bool] = ()) -> list[Image.Image | None]:
        """What several exemplars show, as `crop` says; from S3 many are read at once."""
        each = list(zip(rows, sharp or [False] * len(rows), strict=True))
        if is_local(self.path):
            return [self.crop(row, its) for row, its in each]
        with ThreadPoolExecutor(_READ_AT_ONCE, "crop") as pool:
            return list(pool.map(lambda one: self.crop(*one), each))

    def picture(self, image_id: int) -> Image.Image | None:
        """The picture of a whole image that the run holds, reduced or not; None if it holds none.

        Raises `KeyError` for an image that no exemplar names.
        """
        return self.pictures.whole(image_id).stored()

    def whole(self, image_id: int) -> Image.Image:
        """A whole image as large as it is to be had: as the run holds it, read again, or else its reduced picture.

        Raises `UserError` or `ImageError` where there is none of them, `KeyError` for one that no exemplar names.
        """
        pixels = self.pictures.whole(image_id)
        found = pixels.stored() if pixels.original is None else None
        try:
            return found or self.place_of(image_id).read()
        except GONE:
            found = pixels.stored()
            if found is None:
                raise
            return found

    def original(self, image_id: int) -> Image.Image:
        """The whole original image, read from its shard again. Raises `UserError` if it has gone."""
        at = self.place_of(image_id)
        return decode(read_bytes(at.shard, at.place), self._upright)

    @property
    def _upright(self) -> bool:
        """Whether images were turned by their EXIF orientation."""
        return bool(self.record.get("preprocessing", {}).get("upright"))

    def place_of(self, image_id: int) -> Original:
        """Where an image lies in its dataset. Raises `KeyError` for one that no exemplar names."""
        if image_id not in self._places:
            row = self.images.loc[image_id]
            size = int(row["width"]), int(row["height"])
            shard, place = self.shards_to_read[int(row["shard"])], Place.of(row)
            if self.only_summed and place.crc32 is None and not self.trusted:
                shard = replace(shard, barred=f"{self.path} does not say which bytes its images have. {FIX}")
            self._places[image_id] = Original(shard, place, size, self._upright)
        return self._places[image_id]

    @cached_property
    def pictures(self) -> Pictures:
        """The pictures and crops that the run holds."""
        return Pictures(self.path, self.place_of, self.record.get("boxes") != "network input")

    @cached_property
    def shards_to_read(self) -> Mapping[int, Shard]:
        """The shards by number, to read images again from where they were mined.

        Those elsewhere are barred in a run that is not `trusted`.
        """
        if self._shards is not None:
            return self._shards
        urls = dict(zip(self.shards["shard"].tolist(), self.shards["url"].tolist(), strict=True))
        barred = not self.trusted if any(map(is_elsewhere, urls.values())) else False
        return {number: self._shard(number, url, barred) for number, url in urls.items()}

    def _shard(self, number: int, url: str, barred: bool) -> Shard:
        why = (
            f"The images of {self.path} lie at {public(url)}, which is not asked for them: it is not a run that you "
            f"mined here. {FIX}"
        )
        return reopened(number, url, why if barred and is_elsewhere(url) else "")

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

    def heat(self, row: Mapping[str, Any], whole: bool = True) -> Image.Image | None:
        """Where in its image an exemplar, a row of `exemplars`, makes its unit active: a heat map over the whole image,
        or over what `crop` shows. None where the run holds no map, its place is not known, or there is no picture.
        """
        found = self.maps(row["layer"], int(row["unit"]))
        found = found[(found["rank"] == row["rank"]) & (found["image_id"] == row["image_id"])]
        activations = ActivationMap.of(found.iloc[0].to_dict()) if len(found) else None
        if activations is None or activations.place is None:
            return None
        image_id = int(row["image_id"])
        shown = self.picture(image_id) if whole else self.crop(row)
        box = (0, 0, *self.place_of(image_id).size) if whole else box_of(row)
        return None if shown is None else heat(shown, box, activations)

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


class Mapped(NamedTuple):
    """An activation atlas: `points`, a row per drawn position; `cells`, a row per cell, by level, row and column."""

    points: pd.DataFrame
    cells: pd.DataFrame


class RunMaxima:
    """The matrix of all image activations of a run: a row per image that went through the network."""

    def __init__(self, run: Run) -> None:
        self.run, self.folder = run, run.path / "maxima"
        if not (self.folder / "images.parquet").is_file():
            raise UserError(
                f"{run.path} does not keep all image activations. Mine it again in a new RUN: "
                f"{command('mine', run=LEFT_OPEN, keep_maxima=1)} (4 bytes an image and unit; float16 takes half)."
            )

    @cached_property
    def images(self) -> pd.DataFrame:
        """Which image each row is: `maxima/images.parquet`."""
        return read_rows(self.folder / "images.parquet").to_pandas()

    def layer(self, name: str) -> np.ndarray:
        """The image activations of all units of a layer, float32 `[N, U]`. Raises `UserError` without such a layer."""
        place, units = self.run.at(name), self.run.layers["units"].to_numpy()
        begin = int(units[:place].sum())
        end = begin + int(units[place])
        parts = []
        for file in self.images["file"].unique():
            with local_copy(self.folder / file) as path:
                parts.append(np.asarray(np.load(path, mmap_mode="r")[:, begin:end], np.float32))
        return np.concatenate(parts)


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
