"""Pictures of the atlas: out of a table's cell, and whole images reduced for a page."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image as Pillow

from actmine.pipeline.atlas.cells import CELL, POSITION, picture_of
from actmine.pipeline.atlas.links import OF_OTHERS, Picture
from actmine.pipeline.atlas.others import Others
from actmine.pipeline.atlas.queries import Queries
from actmine.pipeline.datasets.remote import is_remote
from actmine.pipeline.exemplars.heat import ActivationMap, overlay
from actmine.pipeline.exemplars.pictures import GONE, SMALL_SIDE, Pixels, encode
from actmine.pipeline.storage.files import table_file
from actmine.schemas.crops import BOX
from actmine.schemas.maps import MAPS

WHOLE_SIDE = 960
"""The longest side of a whole image on a page (pixels)."""
_KEPT = 128
_QUALITY, _OF_TILES = 88, 82
_LIGHT_QUALITY, _DRAWN_QUALITY = 76, 85
_EFFORT = 2
"""Of libwebp, up to 6: 4, its default, takes twice as long for 4% of the bytes."""
_TABLES = {
    "visualization": ("units", "visualization", ()),
    "crop": ("exemplars", "crop", ("rank",)),  # or out of the picture of its image
    "preset": ("visualizations", "visualization", ("preset", "facet")),
    "facet": ("facets", "visualization", ("preset", "facet")),
    "view": ("views", "view", ("method", "rank")),
}
"""Kinds of pictures: the table, its column of pictures, the columns whose values are the marks."""
_A_FILE_EACH = ("visualizations", "views")
"""Tables with a file for each layer and first mark."""
_UNSAID = {"facet": "none"}


def stored_picture(queries: Queries, picture: Picture, others: Others | None = None) -> bytes | None:
    """An encoded picture out of its table, or out of another run's (`OF_OTHERS`); None where there is none.

    Raises `UserError` where the table cannot be read.
    """
    if picture.kind in OF_OTHERS:
        behind = others.behind(picture) if others else None
        return stored_picture(*behind) if behind else None
    if picture.kind == "heat":
        return _heat(queries, picture)
    if picture.kind in (CELL, POSITION):
        return picture_of(queries, picture)
    row = _row(queries, picture)
    if row and picture.kind == "crop":
        return _crop(queries, row)
    column = _TABLES[picture.kind][1] if row else ""
    return row[column]["bytes"] if row and row[column] else None


def _row(queries: Queries, picture: Picture) -> dict[str, Any]:
    """The row of a picture in its table; empty where there is none."""
    if picture.kind not in _TABLES:
        return {}
    table, column, names = _TABLES[picture.kind]
    if len(picture.marks) != len(names):
        return {}
    file = f"{picture.layer}-{picture.marks[0]}" if table in _A_FILE_EACH else picture.layer
    columns = [*names, column, *(("image_id", *BOX) if picture.kind == "crop" else ())]
    rows = queries.reading.rows(table_file(queries.run.path, table, file), columns, picture.unit)
    if rows is None or column not in rows.column_names:
        return {}
    place = next(iter(_where(rows, dict(zip(names, picture.marks, strict=True)))), None)
    return {} if place is None else rows.slice(place, 1).to_pylist()[0]


def cut_out(queries: Queries, picture: Picture) -> tuple[int, Pixels] | None:
    """The image and the box of a crop that the run holds no pixels of its own of; None for any other picture."""
    row = _row(queries, picture) if picture.kind == "crop" else {}
    try:
        pixels = queries.run.pictures.of(row) if row else None
    except KeyError:
        return None
    return None if pixels is None or not (pixels.whole or pixels.data is None) else (int(row["image_id"]), pixels)


def _crop(queries: Queries, row: dict[str, Any]) -> bytes | None:
    """An exemplar's crop: the bytes that the run holds of it, or cut out of its image's picture, reduced if huge."""
    try:
        pixels = queries.run.pictures.of(row)
        if pixels.data is not None and not pixels.whole:
            return pixels.data
        image = pixels.stored() if pixels.data else pixels.sharp()[0]
    except KeyError:
        return None
    if image is None:
        return None
    image.thumbnail((WHOLE_SIDE, WHOLE_SIDE), Pillow.Resampling.LANCZOS)
    return encode(image)


def _heat(queries: Queries, picture: Picture) -> bytes | None:
    """The heat of an exemplar, to lie over its image."""
    columns = [name for name in MAPS.names if name not in ("layer", "unit")]
    rows = queries.reading.rows(table_file(queries.run.path, "maps", picture.layer), columns, picture.unit)
    if rows is None or len(picture.marks) != 1:
        return None
    place = next(iter(_where(rows, {"rank": picture.marks[0]})), None)
    return None if place is None else overlay(ActivationMap.of(rows.slice(place, 1).to_pylist()[0]))


def _where(rows: pa.Table, marks: dict[str, str]) -> list[int]:
    kept = list(range(len(rows)))
    for name, wanted in marks.items():
        there = rows[name].to_pylist() if name in rows.column_names else [None] * len(rows)
        kept = [row for row in kept if str(_UNSAID.get(name) if there[row] is None else there[row]) == wanted]
    return kept


def inlined(data: bytes) -> str:
    """An encoded picture as an address that holds it, for one of a few hundred bytes."""
    return f"data:image/{kind_of(data)};base64,{b64encode(data).decode()}"


def kind_of(data: bytes) -> str:
    """The extension that an encoded picture's bytes call for: png, webp, jpg or svg."""
    if data.startswith(b"\x89PNG"):
        return "png"
    if data[8:12] == b"WEBP":
        return "webp"
    return "svg" if data.lstrip().startswith(b"<svg") else "jpg"


class Wholes:
    """Whole images reduced for pages, as bytes that `encode` makes of them; the latest stay in memory."""

    def __init__(self, queries: Queries, encode: Callable[[Pillow.Image], bytes] | None = None) -> None:
        self._queries, self._encode = queries, encode or encoded
        self._readable: dict[int, bool] = {}
        self.of = lru_cache(_KEPT)(self._read)

    def readable(self, image_id: int) -> bool:
        """Whether an image can be read and is the one that was mined; tried once."""
        if image_id not in self._readable:
            self._readable[image_id] = self.of(image_id) is not None
        return self._readable[image_id]

    def there(self, image_id: int) -> bool:
        """Whether the run holds a picture of an image, or its file is where it was; of a shard elsewhere none asks."""
        image = self._queries.images.get(image_id)
        if image is not None and self._queries.run.pictures.there:
            return True
        if image is None or not image.shard:
            return False
        if is_remote(image.shard):
            return True
        place = Path(image.shard)
        return (place / image.path).is_file() if place.is_dir() else place.is_file()

    def _read(self, image_id: int) -> bytes | None:
        """An image as JPEG, or PNG where it is small; None where there is no picture and the image has gone."""
        found = self._reduced(image_id)
        self._readable[image_id] = found is not None
        return found

    def _reduced(self, image_id: int) -> bytes | None:
        try:
            return self._encode(self._queries.run.whole(image_id))
        except (*GONE, KeyError):
            return None


def encoded(image: Pillow.Image) -> bytes:
    """An image of at most `WHOLE_SIDE` pixels a side; pixels of small ones are kept exactly."""
    options: dict[str, Any] = {"format": "PNG", "compress_level": 1}
    if max(image.size) > 256:
        image = image.copy()
        image.thumbnail((WHOLE_SIDE, WHOLE_SIDE), Pillow.Resampling.LANCZOS)
        options = {"format": "JPEG", "quality": _QUALITY}
    data = io.BytesIO()
    image.convert("RGB").save(data, **options)
    return data.getvalue()


def light(image: Pillow.Image) -> bytes:
    """An image of at most `WHOLE_SIDE` pixels a side as WebP, a quarter of the bytes of `encoded` and less.

    Pixels of images of up to `SMALL_SIDE` a side are kept exactly.
    """
    if max(image.size) <= SMALL_SIDE:
        return encoded(image)
    small = image.convert("RGB")
    small.thumbnail((WHOLE_SIDE, WHOLE_SIDE), Pillow.Resampling.LANCZOS)
    return _webp(small, _LIGHT_QUALITY)


def reduced(size: tuple[int, int]) -> float:
    """By how much a whole image of a size (pixels) is reduced for pages: 1 if not at all."""
    return min(1.0, WHOLE_SIDE / max(*size, 1))


def lighter(data: bytes) -> bytes:
    """A picture for exported pages: an exact one above 64 pixels a side as WebP, where that is smaller."""
    if kind_of(data) != "png":
        return data
    image = Pillow.open(io.BytesIO(data))
    if max(image.size) <= SMALL_SIDE or image.mode not in ("RGB", "L"):
        return data
    return min(data, _webp(image.convert("RGB"), _DRAWN_QUALITY), key=len)


def _webp(image: Pillow.Image, quality: int) -> bytes:
    data = io.BytesIO()
    image.save(data, "WEBP", quality=quality, method=_EFFORT)
    return data.getvalue()


def fitted(data: bytes, side: int) -> bytes:
    """A picture for a place on a page that shows at most `side` pixels of either side: reduced, and `lighter`.

    Whatever is no smaller then stays as it is, and so do pictures whose pixels are to be seen.
    """
    if kind_of(data) == "svg":
        return data
    stored = Pillow.open(io.BytesIO(data))
    if max(stored.size) <= side:
        return lighter(data)
    image = stored.convert("RGB")
    image.thumbnail((side, side), Pillow.Resampling.LANCZOS)
    smaller = io.BytesIO()
    image.save(smaller, "JPEG", quality=_OF_TILES, optimize=True)
    return min(data, smaller.getvalue(), key=len)


def absence(size: tuple[int, int]) -> bytes:
    """A picture that says in an image's place that it has gone."""
    width, height = size
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        '<rect width="100%" height="100%" fill="#8884"/><text x="50%" y="50%" text-anchor="middle" fill="#888" '
        f'font-family="sans-serif" font-size="{max(width / 16, 6):.0f}">no longer there</text></svg>'
    ).encode()
