"""What a run holds of its images, looked up: the picture of an image, and the pixels of any box of it."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from actmine.pipeline.datasets.shards import Place, Shard, read_bytes
from actmine.pipeline.errors import UserError
from actmine.pipeline.preprocessing.images import ImageError, decode
from actmine.pipeline.storage.reading import Reading
from actmine.schemas.crops import BOX

KEPT_PIXELS = 64 << 20
"""Of decoded images that stay in memory, four bytes each."""
GONE = (UserError, ImageError, OSError)
"""What reading an image again raises where it has gone or is another one."""
SMALL_SIDE = 64
"""Pictures up to so many pixels a side are kept exact."""
Box = tuple[int, int, int, int]
Decoded = dict[bool, Image.Image]
"""Of one image the original (False) and the picture that a run stores of it (True), as far as they were read."""


@dataclass(frozen=True, slots=True)
class Original:
    """Where an image of `size` (width, height) lies in its dataset; `upright`: turned by EXIF."""

    shard: Shard
    place: Place
    size: tuple[int, int]
    upright: bool = False

    def read(self) -> Image.Image:
        """The image again. Raises `UserError` or `ImageError` where it has gone or is not the one that was mined."""
        image = decode(read_bytes(self.shard, self.place), self.upright)
        if image.size != self.size:
            raise ImageError(f"{self.place.path} of {self.shard.url} is no longer the image that was mined")
        return image


@dataclass(frozen=True, slots=True)
class Pixels:
    """The pixels of a `box` (of the original), wherever they are: a value that can travel.

    `data` is an encoded picture of the box or, if `whole`, of the image; None where the run holds none. `original` is
    where to read them otherwise: None where `data` is as sharp.
    """

    box: Box
    data: bytes | None
    whole: bool
    size: tuple[int, int]
    original: Original | None = None

    def stored(self, decoded: Decoded | None = None) -> Image.Image | None:
        """What the run holds of the box, perhaps reduced; None where that is nothing. Raises `UserError` if damaged."""
        data = self.data
        if data is None:
            return None
        try:
            image = _once(decoded if self.whole else None, True, lambda: decode(data))
        except ImageError as error:
            raise UserError(
                f"A picture of the run is damaged ({error}). Delete the run.json of the run and mine it again."
            ) from error
        return image.crop(scaled(self.box, self.size, image.size)) if self.whole else image

    def sharp(self, decoded: Decoded | None = None) -> tuple[Image.Image | None, bool]:
        """The box in pixels of the original, and whether they truly are: where that has gone, a picture enlarged.

        Boxes of one image that share `decoded`, empty at first, have it decoded once.
        """
        if self.original is not None:
            try:
                return _once(decoded, False, self.original.read).crop(self.box), True
            except GONE:
                pass
        found = self.stored(decoded)
        if found is None or self.original is None:
            return found, found is not None
        width, height = self.box[2] - self.box[0], self.box[3] - self.box[1]
        return found.resize((width, height), Image.Resampling.BICUBIC), False


def _once(decoded: Decoded | None, stored: bool, read: Callable[[], Image.Image]) -> Image.Image:
    if decoded is None:
        return read()
    if stored not in decoded:
        decoded[stored] = read()
    return decoded[stored]


def encode(picture: Image.Image) -> bytes:
    """PNG, which is exact, up to 64 x 64 pixels; JPEG of quality 90 without chroma subsampling above."""
    data = io.BytesIO()
    if max(picture.size) <= SMALL_SIDE:
        picture.save(data, "PNG", compress_level=1)
    else:
        picture.save(data, "JPEG", quality=90, subsampling=0)
    return data.getvalue()


def exact(picture: Image.Image) -> bytes:
    """PNG of any size."""
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


def scaled(box: Box, size: tuple[int, int], to: tuple[int, int]) -> Box:
    """A box of an image of `size` in pixels of a picture of it as large as `to`, at least one of them."""
    if size == to:
        return box
    left, top = (min(int(at * new / old), new - 1) for at, old, new in zip(box[:2], size, to, strict=True))
    right, bottom = (
        max(round(at * new / old), begin + 1)
        for at, old, new, begin in zip(box[2:], size, to, (left, top), strict=True)
    )
    return left, top, right, bottom


class Pictures:
    """The pictures of the run in a folder; what was read last stays in memory. Many threads may read at once.

    `original` says where an image lies by its number; `followed`: boxes are in pixels of originals, else a crop shows
    the whole image.
    """

    def __init__(self, run: Path, original: Callable[[int], Original], followed: bool = True) -> None:
        self._run, self._original, self._followed = run, original, followed
        self._reading = Reading()
        self._lock = threading.Lock()
        self._decoded: OrderedDict[int, Image.Image] = OrderedDict()
        self._pixels = 0

    @property
    def there(self) -> bool:
        """Whether the run holds any."""
        return bool(self._reading.columns(self._run / "pictures.parquet"))

    def whole(self, image_id: int) -> Pixels:
        """All of an image. Raises `KeyError` for one that no exemplar names."""
        at = self._original(image_id)
        row = self._row("pictures", ("width", "height", "picture"), image_id)
        size = (row["width"], row["height"]) if row else None
        data = row["picture"]["bytes"] if row else None
        return Pixels((0, 0, *at.size), data, True, at.size, None if size == at.size else at)

    def of(self, row: Mapping[str, Any], whole: Pixels | None = None) -> Pixels:
        """The box of an exemplar: from its own cell in runs of versions before, its crop, or its image's picture.

        `whole` is that picture, if it is at hand. Raises `KeyError` for an image that no exemplar names.
        """
        image_id, box = int(row["image_id"]), box_of(row)
        cell = row.get("crop")
        data = cell["bytes"] if isinstance(cell, dict) else None
        if data is None:
            whole = whole or self.whole(image_id)
            if not self._followed:
                return whole
        if data is None and whole is not None and whole.data is not None and whole.original is not None:
            data = self.crop(image_id, box)
        if data is not None:
            return Pixels(box, data, False, (box[2] - box[0], box[3] - box[1]))
        assert whole is not None
        return replace(whole, box=box)

    def shown(self, row: Mapping[str, Any]) -> Image.Image | None:
        """What the run holds of the box of an exemplar. Images that it holds in full stay decoded for a while."""
        image_id = int(row["image_id"])
        if not self._followed:
            return self.of(row).stored()
        with self._lock:
            image = self._decoded.get(image_id)
            if image is not None:
                self._decoded.move_to_end(image_id)
        if image is None:
            pixels = self.of(row)
            if pixels.data is None or not pixels.whole or pixels.original is not None:
                return pixels.stored()
            image = replace(pixels, box=(0, 0, *pixels.size)).stored()
            assert image is not None
            self._keep(image_id, image)
        return image.crop(box_of(row))

    def _keep(self, image_id: int, image: Image.Image) -> None:
        with self._lock:
            if image_id not in self._decoded:
                self._decoded[image_id] = image
                self._pixels += image.width * image.height
            while self._pixels > KEPT_PIXELS and len(self._decoded) > 1:
                last = self._decoded.popitem(last=False)[1]
                self._pixels -= last.width * last.height

    def crop(self, image_id: int, box: Box) -> bytes | None:
        """The encoded crop of a box; None where there is none of its own."""
        row = self._row("crops", (*BOX, "crop"), image_id, box)
        return row["crop"]["bytes"] if row else None

    def _row(self, table: str, columns: tuple[str, ...], image_id: int, box: Box | None = None) -> Any:
        rows = self._reading.rows(self._run / f"{table}.parquet", columns, image_id)
        if rows is None or not len(rows):
            return None
        if box is None:
            return rows.slice(0, 1).to_pylist()[0]
        places = zip(*(rows[side].to_pylist() for side in BOX), strict=True)
        place = next((place for place, its in enumerate(places) if its == box), None)
        return None if place is None else rows.slice(place, 1).to_pylist()[0]


def box_of(row: Mapping[str, Any]) -> Box:
    """Left, top, right and bottom of an exemplar (pixels of the original)."""
    left, top, right, bottom = (int(row[side]) for side in BOX)
    return left, top, right, bottom
