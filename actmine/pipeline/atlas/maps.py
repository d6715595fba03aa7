"""The maps of a run for the browser: all points as one compact file, and a picture for where no script runs."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from actmine.pipeline.atlas.links import Links, Picture
from actmine.pipeline.atlas.queries import Queries
from actmine.pipeline.notes import Noted, Target
from actmine.pipeline.readings.statistics_options import BOTTOM
from actmine.pipeline.sheets.map_colours import KINDS, OTHER, OTHER_DARK, RAMP_DARK, ramp, scale
from actmine.pipeline.sheets.map_points import MEASURES, Points, points_of
from actmine.pipeline.sheets.map_sheet import cloud_png
from actmine.pipeline.unit_maps import is_fresh
from actmine.pipeline.words import MapOf

MAGIC = b"AMAP"
"""How the file begins; then come four bytes with the length of the header, the header (JSON), and the columns."""
_NUMBER = 9_007_199_254_740_881  # stands for the number in an address until the browser puts it in
_MOST_NOTED = 2000
_MOST_LABELS = 40

Shot = str | list[Any] | None
"""The picture of a point: its address; address, size and box of a part; or none."""


class Maps:
    """The maps that a run has, read when they are first asked for. Many threads may ask."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self._lock = threading.Lock()
        self._made: dict[tuple[str, MapOf], Any] = {}

    @property
    def there(self) -> list[MapOf]:
        """Which maps there are of what the run holds now."""
        return [by for by in MapOf if is_fresh(self._queries.run.record, by)]

    def points(self, by: MapOf) -> Points | None:
        """The points of a map; None where there is none. Raises `UserError` where a table cannot be read."""
        if by not in self.there:
            return None
        return self._once(
            "points", by, lambda: points_of(self._queries.run, by, list(self._queries.layers), self._read)
        )

    def data(self, by: MapOf, links: Links, shots: Callable[[Points], Sequence[Shot]] | None = None) -> bytes | None:
        """The file of a map; None where there is none. `shots` gives the pictures where these have no pattern."""
        points = self.points(by)
        if points is None:
            return None
        return self._once("data", by, lambda: packed(points, self._queries, links, shots))

    def picture(self, by: MapOf) -> bytes | None:
        """A map as PNG; None where there is none."""
        points = self.points(by)
        return None if points is None else self._once("picture", by, partial(cloud_png, points))

    def _read(self, path: Path, columns: Sequence[str]) -> pa.Table | None:
        return self._queries.reading.rows(path, columns, keep=False)

    def _once(self, what: str, by: MapOf, make: Callable[[], Any]) -> Any:
        with self._lock:
            if (what, by) not in self._made:
                self._made[what, by] = make()
            return self._made[what, by]


def packed(
    points: Points, queries: Queries, links: Links, shots: Callable[[Points], Sequence[Shot]] | None = None
) -> bytes:
    """All that the browser needs of a map: a header in JSON and a column of 4 bytes a point for each number."""
    columns = {"x": points.x, "y": points.y, "number": points.number, "layer": points.layer, "label": points.label}
    columns = {name: each.astype("<f4" if name in ("x", "y") else "<i4") for name, each in columns.items()}
    columns |= {name: each.astype("<f4") for name, each in points.measures.items()}
    if points.by == MapOf.units:
        fires = points.fires if queries.end != BOTTOM else np.ones(len(points), bool)
        columns["shown"] = np.where(points.drawn, 2, np.where(fires, 1, 0)).astype("<i4")
    header = {
        "by": str(points.by), "count": len(points), "layers": [_layer(name, queries, links, shots is None)
                                                               for name in points.layers],
        "labels": points.labels, "commonest": points.commonest(len(KINDS)),
        "measures": [{"name": name, "words": MEASURES[name], "scale": scale(values)}
                     for name, values in points.measures.items()],
        "regions": [[points.labels[each.label], each.x, each.y, each.count] for each in points.regions()],
        "colours": {"kinds": KINDS, "ramp": [ramp(), ramp(RAMP_DARK)], "other": [OTHER, OTHER_DARK]},
        "columns": [[name, values.dtype.kind] for name, values in columns.items()],
        "shots": list(shots(points)) if shots else None,
    }  # fmt: skip
    if points.by == MapOf.images:
        keys = dict(queries.images.numbers_and_keys())
        header["keys"] = [keys.get(each, "") for each in points.number.tolist()]
        header["image"] = _any(links.image(_NUMBER)) if shots is None else ""
        header["whole"] = _any(links.whole(_NUMBER)) if shots is None else ""
    said = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    said += b" " * (-(len(said) + 8) % 8)
    return b"".join([MAGIC, len(said).to_bytes(4, "little"), said, *(each.tobytes() for each in columns.values())])


def as_script(data: bytes) -> str:
    """The file as a script, which a browser may read from a disk, as it may no other file."""
    return f'window.atlasMap = "{base64.b64encode(data).decode()}";\n'


def _layer(name: str, queries: Queries, links: Links, pictured: bool) -> dict[str, Any]:
    about = {"name": name, "short": queries.short.get(name, name), "unit": _any(links.unit(name, _NUMBER))}
    if pictured:
        about["drawn"] = _any(links.picture(Picture(name, _NUMBER, "visualization")))
        about["crop"] = _any(links.picture(Picture(name, _NUMBER, "crop", ("0",))))
    return about


def _any(address: str) -> str:
    """An address with `*` in place of the number; no address of ours holds one."""
    return address.replace(str(_NUMBER), "*")


def written_shots(points: Points, links: Links, images: set[int], pictures: bool = True) -> list[Shot]:
    """The pictures of an export's points, which are written, or parts of images, as the tiles of its pages show them.

    Of images those whose pages are there; without `pictures` of the dataset what was drawn alone.
    """
    found: list[Shot] = []
    for place in range(len(points)):
        number = int(points.number[place])
        if points.by == MapOf.images:
            found.append([links.whole(number), links.image(number)] if number in images else None)
            continue
        picture = Picture(points.layers[points.layer[place]], number, "visualization")
        if not points.drawn[place]:
            picture = Picture(picture.layer, number, "crop", ("0",))
        if not (points.drawn[place] or (points.fires[place] and pictures)):
            found.append(None)
        elif cut := links.cut(picture):
            found.append([cut.address, *cut.size, *cut.box])
        else:
            found.append(links.picture(picture))
    return found


def noted_on(points: Points, notes: dict[Target, Noted] | Any) -> list[tuple[Target, Noted]]:
    """What is noted of the points of a map, as many as a page lists."""
    found = []
    for target, noted in notes.items():
        of = target.image_id is None if points.by == MapOf.units else target.image_id is not None
        if of and noted.any and (target.unit is not None or target.image_id is not None):
            found.append((target, noted))
    return found[:_MOST_NOTED]


def labels_on(points: Points) -> list[tuple[str, int]]:
    """The labels that most points have, with how many."""
    return [(points.labels[label], count) for label, count in points.commonest(_MOST_LABELS)]


def layers_on(points: Points) -> list[tuple[str, int]]:
    """The layers of a map with how many units are on it."""
    counts = np.bincount(points.layer[points.layer >= 0], minlength=len(points.layers))
    return list(zip(points.layers, counts.tolist(), strict=True))
