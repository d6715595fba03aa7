"""Addresses of exported pages, and the pictures below them: each written once, however many pages show it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from actmine.pipeline.atlas.extent import EVERYTHING, Extent
from actmine.pipeline.atlas.links import (
    BY_NUMBER,
    FROM_ANYWHERE,
    Came,
    Choice,
    Cut,
    Picture,
    asked_of,
    on_map,
    segment,
    segments,
)
from actmine.pipeline.atlas.others import Others
from actmine.pipeline.atlas.pictures import Wholes, absence, cut_out, inlined, kind_of, lighter, reduced, stored_picture
from actmine.pipeline.atlas.queries import Queries

_INDENTED = re.compile(r"\n\s+<")
_SHARP = 320
"""A part of a reduced image is shown instead of a crop where it still has so many pixels a side, or all there are."""


class Files:
    """Addresses of exported pages, relative to a page so many folders down; writes every picture that is asked for."""

    def __init__(self, out: Path, queries: Queries, wholes: Wholes, extent: Extent = EVERYTHING) -> None:
        self.out, self.queries, self.wholes, self.others = out, queries, wholes, Others(queries)
        self.extent = extent
        self.layers = segments(queries.layers)
        self.images: dict[int, None] = {}
        self.count = self.nbytes = self.depth = 0
        self._written: dict[Picture | int, str] = {}
        self._named: set[str] = set()
        self._cuts: dict[Picture, Part | None] = {}
        self._folders: set[Path] = set()

    def runs(self) -> str:
        """None: an export is of one run."""
        return ""

    def elsewhere(self, place: str, layer: str = "", unit: int | None = None) -> str:
        """None: no other run is exported with it."""
        return ""

    def run(self) -> str:
        """The run's page."""
        return self._to("index.html")

    def layer(self, layer: str, choice: Choice = BY_NUMBER) -> str:
        """A layer's page; none for a layer that is not exported."""
        return self._to(layer_file(self.layers[layer], choice)) if layer in self.layers else ""

    def unit(self, layer: str, unit: int, came: Came = FROM_ANYWHERE) -> str:
        """A unit's page; none where its layer is not exported. Only a layer's own order is carried on."""
        if layer not in self.layers:
            return ""
        return self._to(f"layer/{self.layers[layer]}/{unit}.html") + asked_of(Came(came.choice))

    def orders(self, layer: str) -> str:
        """A file by which a unit's page finds its place in its layer's order."""
        return self._to(f"layer/{self.layers[layer]}/orders.js")

    def image(self, image_id: int, page: int = 1, mark: str = "") -> str:
        """An image's page, which will have to be written; where images have none, the picture of it, if any."""
        if not self.extent.image_pages:
            return self.whole(image_id) if self.wholes.there(image_id) else ""
        self.images.setdefault(image_id)
        return self._to(image_file(image_id, page)) + (f"#{mark}" if mark else "")

    def cells(self, layer: str, level: int | None = None) -> str:
        """The map of a layer's activation atlas; none for a layer that is not exported."""
        return self._to(cells_file(self.layers[layer], level)) if layer in self.layers else ""

    def cell(self, layer: str, level: int, place: int) -> str:
        """A cell of that map."""
        return self._to(cell_file(self.layers[layer], level, place))

    def search(self, text: str = "") -> str:
        """The search page."""
        return self._to("search.html")

    def compared(self, name: str, words: Mapping[str, str | int] = {}) -> str:
        """None: an export is of one run."""
        return ""

    def pair(self, name: str, layer: str, unit: int) -> str:
        """None: an export is of one run."""
        return ""

    def training(self, words: Mapping[str, str | int] = {}) -> str:
        """None: what a unit was stands on its own page."""
        return ""

    def noting(self) -> str:
        """Nowhere: nobody is there to take notes."""
        return ""

    def rows(self, *parts: str | int, **words: str | int) -> str:
        """None: only the server answers programs."""
        return ""

    def look(self, token: str = "", part: str = "") -> str:
        """None: no network is at hand."""
        return ""

    def map(self, by: str = "units", layer: str = "", unit: int = 0) -> str:
        """The page of a map, where a unit stands out if a `layer` is given."""
        return self._to(f"map/{by}.html") + on_map(layer, unit)

    def map_data(self, by: str) -> str:
        """The file of a map's points, a script."""
        return self._to(f"map/{by}.js")

    def map_picture(self, by: str) -> str:
        """A map as a picture."""
        return self._to(f"map/{by}.png")

    def taken(self, layer: str, unit: int, name: str) -> str:
        """None: files of units are made by the server."""
        return ""

    def noted(self, tag: str = "") -> str:
        """The page of all that is noted, where it comes to a tag."""
        return self._to("noted.html") + (f"#tag-{segment(tag)}" if tag else "")

    def picture(self, picture: Picture, side: int = 0) -> str:
        """A picture under a name made of its bytes, written if none was; heat, a few bytes, as a data address."""
        if picture not in self._written:
            data = stored_picture(self.queries, picture, self.others) or absence((1, 1))
            if picture.kind == "heat":
                self._written[picture] = inlined(data)
            else:
                self._written[picture] = self._named_by_bytes(lighter(data))
        found = self._written[picture]
        return found if found.startswith("data:") else self._to(found)

    def cut(self, picture: Picture) -> Cut | None:
        """The part of a whole image that shows what the picture would; None where the picture shows more."""
        if picture not in self._cuts:
            self._cuts[picture] = part_of(self.queries, self.wholes, picture)
        part = self._cuts[picture]
        return None if part is None else Cut(self.whole(part[0]), *part[1:])

    def whole(self, image_id: int) -> str:
        """An image reduced for the page, written if it was not before."""
        if image_id not in self._written:
            data = self.wholes.of(image_id) or absence(self.queries.images.size(image_id) or (1, 1))
            self._written[image_id] = self.write(f"whole/{image_id}.{kind_of(data)}", data)
        return self._to(self._written[image_id])

    def static(self, name: str) -> str:
        """A file of the atlas itself."""
        return self._to(f"static/{name}")

    def write(self, name: str, data: bytes | str) -> str:
        """Writes a file below the folder; its name."""
        path = self.out / name
        if path.parent not in self._folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.parent.resolve().is_relative_to(self.out.resolve()):
                raise OSError(f"{path.parent} is a link that leads out of it")
            self._folders.add(path.parent)
        path.unlink(missing_ok=True)  # were it a link, what it leads to would be written over
        with path.open("xb") as file:
            self.nbytes += file.write(data.encode("utf-8", "replace") if isinstance(data, str) else data)
        self.count += 1
        return name

    def page(self, name: str, make: Callable[[], str | None]) -> None:
        """Writes a page, whose addresses are relative to where it is."""
        self.depth = name.count("/")
        made = make()
        if made is not None:
            self.write(name, _INDENTED.sub("\n<", made))

    def _named_by_bytes(self, data: bytes) -> str:
        name = f"picture/{hashlib.sha256(data).hexdigest()[:16]}.{kind_of(data)}"
        if name not in self._named:
            self._named.add(self.write(name, data))
        return name

    def _to(self, name: str) -> str:
        return "../" * self.depth + name


Part = tuple[int, tuple[int, int], tuple[int, int, int, int]]
"""An image, its size and a box of it (pixels of the original)."""


def part_of(queries: Queries, wholes: Wholes, picture: Picture) -> Part | None:
    """The part of a reduced image that is as sharp as a crop is shown; None where it is less, or the image has gone."""
    found = cut_out(queries, picture)
    if found is None:
        return None
    image_id, pixels = found
    left, top, right, bottom = pixels.box
    scale = reduced(pixels.size)
    if scale < 1 and scale * max(right - left, bottom - top) < _SHARP:
        return None
    if right <= left or bottom <= top or not wholes.readable(image_id):
        return None
    return image_id, pixels.size, pixels.box


def layer_file(address: str, choice: Choice) -> str:
    """The file of a layer's page, as its units are chosen there; of labels there is none."""
    if choice == BY_NUMBER:
        return f"layer/{address}.html"
    return f"layer/{address}/by-{choice.sort}{'-reversed' if choice.reverse else ''}-{choice.page}.html"


def image_file(image_id: int, page: int) -> str:
    """The file of an image's page."""
    return f"image/{image_id}{f'-{page}' if page > 1 else ''}.html"


def cells_file(address: str, level: int | None) -> str:
    """The file of a level of a layer's activation atlas, or of the one that is shown first."""
    return f"cells/{address}.html" if level is None else f"cells/{address}/{level}.html"


def cell_file(address: str, level: int, place: int) -> str:
    """The file of a cell of it."""
    return f"cells/{address}/{level}-{place}.html"
