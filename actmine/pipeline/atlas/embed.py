"""A unit as a piece of HTML for somebody else's page: pictures within it, no script, no style sheet, no request."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from actmine.pipeline.atlas.links import Picture
from actmine.pipeline.atlas.pictures import kind_of, stored_picture
from actmine.pipeline.atlas.queries import Queries
from actmine.pipeline.atlas.rendering import environment
from actmine.pipeline.exemplars.pictures import SMALL_SIDE
from actmine.pipeline.readings.statistics_options import TOP
from actmine.pipeline.run import Run

SHOWN = 8
"""Exemplars of a snippet."""
DRAWN_SIDE, CROP_SIDE = 400, 192
"""The longest sides of its pictures (pixels), twice as long as they are shown."""
_QUALITIES, _LONGEST = (80, 50, 20), 80
MOST_BYTES = 150_000
_OF_DRAWING, _OF_CROPS = 55_000, 75_000
"""What a snippet has at most, and how much of it pictures may take (bytes)."""
_TYPES = {"png": "png", "jpg": "jpeg", "webp": "webp"}


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture as an address that holds it, what it shows, and whether its pixels are to be seen."""

    data: str
    alt: str
    activation: float | None = None
    label: str = ""
    pixels: bool = False


def snippet(run: Run, layer: str, unit: int) -> str:
    """The HTML of a unit, in ASCII, of at most 150 kB. Raises `UserError` where a table cannot be read."""
    queries = Queries(run)
    page = queries.page(layer, unit)
    if page is None:
        raise KeyError(unit)
    firing = [each for each in page.top if each.activation > 0 or each.band != TOP]
    shots = []
    for each in firing[:SHOWN]:
        found = each.crop and _data(stored_picture(queries, each.crop), CROP_SIDE)
        if found:
            alt = f"{short(each.label or each.key)}, activation {each.activation:.3g}"
            shots.append(Shot(found[0], alt, each.activation, short(each.label or ""), found[1]))
    drawn = (
        _data(stored_picture(queries, Picture(layer, unit, "visualization")), DRAWN_SIDE) if page.unit.drawn else None
    )
    record = run.record
    model, dataset = (short(str(record.get(word))) for word in ("model", "dataset"))
    told = environment().get_template("embed.html").render(
        unit=page.unit, layer=short(layer), model=model, dataset=dataset, by=_by(record.get("versions") or {}),
        drawn=drawn and Shot(drawn[0], f"visualization of unit {unit}", pixels=drawn[1]), shots=_within(shots),
        label=short(page.unit.label or ""), seen=record.get("counts", {}).get("seen"),
        hashes=list(_hashes(record)), count=len(firing), whole=len(shots) == min(SHOWN, len(firing)), end=queries.end,
    )  # fmt: skip
    return told.encode("ascii", "xmlcharrefreplace").decode()


def short(said: str) -> str:
    """Text of at most 80 characters."""
    return said if len(said) <= _LONGEST else f"{said[: _LONGEST - 1]}…"


def _data(picture: bytes | None, side: int) -> tuple[str, bool] | None:
    """A picture of at most `side` pixels a side as an address that holds it, and whether its pixels are to be seen."""
    if picture is None:
        return None
    try:
        image: Pillow.Image = Pillow.open(io.BytesIO(picture))
        small = max(image.size) <= SMALL_SIDE
        if not small or kind_of(picture) not in _TYPES:
            image = image.convert("RGB")
            image.thumbnail((side, side), Pillow.Resampling.LANCZOS)
            for quality in _QUALITIES:
                data = io.BytesIO()
                image.save(data, "WEBP", quality=quality, method=4)
                if data.tell() * 4 / 3 < _OF_DRAWING - 100:
                    break
            picture = data.getvalue()
    except (UnidentifiedImageError, OSError):
        return None  # the page itself says that it is damaged
    return f"data:image/{_TYPES[kind_of(picture)]};base64,{b64encode(picture).decode()}", small


def _within(shots: list[Shot]) -> list[Shot]:
    """The first pictures that leave room for the drawing and the words."""
    kept, size = [], 0
    for each in shots:
        size += len(each.data)
        if size > _OF_CROPS:
            break
        kept.append(each)
    return kept


def _by(versions: dict[str, str]) -> str:
    return " ".join(("actmine", str(versions.get("actmine", "")))).strip()


def _hashes(record: dict[str, object]) -> Iterator[tuple[str, str]]:
    for name, word in (("run", "fingerprint"), ("weights", "weights_hash"), ("dataset", "dataset_fingerprint")):
        if record.get(word):
            yield name, short(str(record[word]))[:16]
