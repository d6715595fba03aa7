"""Reads a finished run: the tables as DataFrames, an exemplar's pixels, an image by its id."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from actmine.pipeline.checked_record import checked
from actmine.pipeline.datasets.range_requests import public
from actmine.pipeline.datasets.reopened import is_elsewhere, reopened
from actmine.pipeline.datasets.shards import Place, Shard, read_bytes
from actmine.pipeline.errors import UserError, near_matches
from actmine.pipeline.exemplars.heat import ActivationMap, heat
from actmine.pipeline.exemplars.pictures import GONE, Original, Pictures, box_of
from actmine.pipeline.preprocessing.images import decode
from actmine.pipeline.run_tables import Tables
from actmine.pipeline.spoken import command
from actmine.pipeline.storage.files import is_local, run_folder
from actmine.pipeline.trust import FIX, is_own

_READ_AT_ONCE = 16


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


class Run(Tables):
    """One run's tables; every table is also a plain Parquet file that any reader opens.

    Images are read again from `shards` by number, if none are given from where the run says that they are; elsewhere
    than on this machine only if the run is `trusted`.
    """

    def __init__(self, path: Path, shards: Mapping[int, Shard] | None = None, trust: bool = False) -> None:
        super().__init__(path)
        self._shards, self._trust = shards, trust
        self._places: dict[int, Original] = {}
        self.only_summed = False
        """Whether images of which no sum is known are not read again: any file of this machine could be meant."""

    @cached_property
    def trusted(self) -> bool:
        """Whether the user says so, or has mined it."""
        return self._trust or is_own(self.path, self.record, self.shards["url"].tolist())

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
