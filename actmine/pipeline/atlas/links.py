"""Addresses of pages and pictures: one interface, answered by the server's paths or by relative files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode

_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_LONGEST = 100


SIDES = (256, 960)
"""How large pictures come at most where pages show them (pixels)."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a unit: `kind` is visualization, crop, heat, preset, facet or view, or of `OF_OTHERS`; `marks` say
    which.

    Of an activation atlas: `cell`, whose number stands in place of a unit's, and `position`, with that of an image.
    """

    layer: str
    unit: int
    kind: str
    marks: tuple[str, ...] = ()


OF_OTHERS = ("match", "beside", "checkpoint")
"""Pictures out of other runs: of a unit's match, of an exemplar of its best match, of the unit at a checkpoint."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How a layer's page shows its units: by which column they are sorted, which way round, which labels or numbers;
    of a wide layer also which page of them, from 1."""

    sort: str = "unit"
    reverse: bool = False
    label: str = ""
    page: int = 1


BY_NUMBER = Choice()
"""All units in the order of their numbers."""


@dataclass(frozen=True, slots=True)
class Came:
    """The list from which one came to a unit: the units of its layer as they were chosen; or what a search for `text`
    found, `under` a label or, where that is empty, by number; or the units that an `image` tops."""

    choice: Choice = BY_NUMBER
    text: str = ""
    under: str = ""
    image: int | None = None


FROM_ANYWHERE = Came()
"""Nothing is known of how one came: a unit stands among those of its layer by number."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A part of a whole image: the image's address and size, and the part's box (pixels of the original)."""

    address: str
    size: tuple[int, int]
    box: tuple[int, int, int, int]


class Links(Protocol):
    """What templates ask for addresses. Where a page is not to be had, the answer is an empty string."""

    def runs(self) -> str:
        """The list of all runs; none where there is one alone."""

    def run(self) -> str:
        """The run's page."""

    def elsewhere(self, place: str, layer: str = "", unit: int | None = None) -> str:
        """The page of another run in the same atlas, by its `place`, or of a layer (its segment) or unit of it."""

    def layer(self, layer: str, choice: Choice = BY_NUMBER) -> str:
        """A layer's page, its units as they are chosen."""

    def unit(self, layer: str, unit: int, came: Came = FROM_ANYWHERE) -> str:
        """A unit's page, from which it goes on as in the list that one came from."""

    def orders(self, layer: str) -> str:
        """A file by which an exported unit's page finds its place in a list; none on the server, which knows it."""

    def image(self, image_id: int, page: int = 1, mark: str = "") -> str:
        """An image's page, where `mark` (`layer_mark`) has one unit's box stand out."""

    def cells(self, layer: str, level: int | None = None) -> str:
        """The map of a layer's activation atlas, at a level of it."""

    def cell(self, layer: str, level: int, place: int) -> str:
        """A cell of that map, at a place of a level: row * side + column."""

    def search(self, text: str = "") -> str:
        """The search page."""

    def look(self, token: str = "", part: str = "") -> str:
        """Where pictures are shown to the network; with `token` what it made of one, or a `part` of that."""

    def noted(self, tag: str = "") -> str:
        """The page of all that is noted, where it comes to a tag."""

    def compared(self, name: str, words: Mapping[str, str | int] = {}) -> str:
        """The page of a comparison with another run, as its words choose; none of exported pages."""

    def pair(self, name: str, layer: str, unit: int) -> str:
        """The page of a unit beside its best match in another run; none of exported pages."""

    def training(self, words: Mapping[str, str | int] = {}) -> str:
        """The page of all units through checkpoints of training; none of exported pages."""

    def noting(self) -> str:
        """Where forms with notes go; nowhere from exported pages."""

    def rows(self, *parts: str | int, **words: str | int) -> str:
        """What the server has for programs: `rows("layer", LAYER, UNIT, "labels")`, `rows("search", q=TEXT)`; none of
        exported pages."""

    def map(self, by: str = "units", layer: str = "", unit: int = 0) -> str:
        """The page of a map, where a unit stands out if a `layer` is given."""

    def map_data(self, by: str) -> str:
        """The file of a map's points."""

    def map_picture(self, by: str) -> str:
        """A map as a picture."""

    def taken(self, layer: str, unit: int, name: str) -> str:
        """A file of a unit, of those in `take_away.FILES`; none of exported pages."""

    def picture(self, picture: Picture, side: int = 0) -> str:
        """A picture out of a table; one that is shown `side` pixels large need not be exact, nor much larger."""

    def cut(self, picture: Picture) -> Cut | None:
        """The part of a whole image that the page is to show as the picture; None: it has an address of its own."""

    def whole(self, image_id: int) -> str:
        """An image, reduced for the page."""

    def static(self, name: str) -> str:
        """A file of the atlas itself."""


def segment(text: str) -> str:
    """Any text as one part of an address and as a file name: `~XX` for bytes that mean something to either.

    Distinct texts give distinct segments; there is none that is empty, `.` or `..`. Long ones end in a hash.
    """
    dots = set(text) <= {"."}
    safe = "".join(
        each
        if each in _PLAIN and not dots
        else "".join(f"~{byte:02X}" for byte in each.encode("utf-8", "surrogatepass"))
        for each in text
    )
    if len(safe) <= _LONGEST:
        return safe or "~"
    return f"{safe[: _LONGEST - 20]}~~{hashlib.sha256(safe.encode()).hexdigest()[:16]}"


def segments(names: Iterable[str]) -> dict[str, str]:
    """A segment for each of several names, different even where case does not count."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        plain = chosen = segment(name)
        number = 2
        while chosen.casefold() in taken:
            chosen, number = f"{plain}~~{number}", number + 1
        taken.add(chosen.casefold())
        found[name] = chosen
    return found


def stamp(name: str) -> str:
    """Tells one state of a file of the atlas from another, so that browsers may keep each for good."""
    file = Path(__file__).parent / "static" / name
    return _stamp(file, file.stat().st_mtime_ns)


@lru_cache(64)
def _stamp(file: Path, written: int) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:10]


def mark(layer: str, unit: int, rank: int) -> str:
    """The name of a unit's box on the page of an image."""
    return f"{segment(layer)}--{unit}--{rank}"


def asked(choice: Choice) -> str:
    """A choice as the query of an address."""
    words = {
        "sort": choice.sort if choice.sort != "unit" else "", "reverse": "1" if choice.reverse else "",
        "label": choice.label, "page": choice.page if choice.page > 1 else "",
    }  # fmt: skip
    return _query(words)


def asked_of(came: Came) -> str:
    """The list that one came from as the query of an address."""
    if came.image is not None:
        return _query({"image": str(came.image)})
    if came.text:
        return _query({"q": came.text, "under": came.under})
    return asked(replace(came.choice, page=1))


def on_map(layer: str, unit: int) -> str:
    """The end of a map's address that has a unit stand out; empty without a layer."""
    return f"#{urlencode({'layer': layer, 'unit': unit})}" if layer else ""


def _query(words: Mapping[str, str | int]) -> str:
    said = urlencode({name: value for name, value in words.items() if value})
    return f"?{said}" if said else ""


class Paths:
    """Addresses on the server, whose own begin with `base`. `version` tells pictures of one state of the run from those
    of another; `shelf` says below which address another run stands, by its place."""

    def __init__(
        self, layers: dict[str, str], version: str, base: str = "", shelf: Callable[[str], str] | None = None,
        looks: bool = False,
    ) -> None:  # fmt: skip
        self._layers, self._version, self._base, self._shelf, self._looks = layers, version, base, shelf, looks

    def below(self, base: str) -> Paths:
        """The same addresses where the server's own begin with `base`, such as `/run/NAME`."""
        return self if base == self._base else Paths(self._layers, self._version, base, self._shelf, self._looks)

    def runs(self) -> str:
        """The list of all runs."""
        return "/" if self._shelf else ""

    def run(self) -> str:
        """The run's page."""
        return f"{self._base}/"

    def elsewhere(self, place: str, layer: str = "", unit: int | None = None) -> str:
        """A page of another run of the shelf."""
        above = self._shelf(place) if self._shelf else ""
        if not above:
            return ""
        return f"{above}/layer/{layer}" + (f"/{unit}" if unit is not None else "") if layer else f"{above}/"

    def layer(self, layer: str, choice: Choice = BY_NUMBER) -> str:
        """A layer's page, its units as they are chosen."""
        if layer not in self._layers:
            return ""
        return f"{self._base}/layer/{self._layers[layer]}{asked(choice)}"

    def unit(self, layer: str, unit: int, came: Came = FROM_ANYWHERE) -> str:
        """A unit's page, from which it goes on as in the list that one came from."""
        return f"{self.layer(layer)}/{unit}{asked_of(came)}" if layer in self._layers else ""

    def orders(self, layer: str) -> str:
        """None: the server knows a unit's place in a list."""
        return ""

    def image(self, image_id: int, page: int = 1, mark: str = "") -> str:
        """An image's page."""
        return f"{self._base}/image/{image_id}" + (f"?page={page}" if page > 1 else "") + (f"#{mark}" if mark else "")

    def cells(self, layer: str, level: int | None = None) -> str:
        """The map of a layer's activation atlas."""
        if layer not in self._layers:
            return ""
        return f"{self._base}/cells/{self._layers[layer]}" + ("" if level is None else f"/{level}")

    def cell(self, layer: str, level: int, place: int) -> str:
        """A cell of that map."""
        return f"{self.cells(layer, level)}/{place}"

    def search(self, text: str = "") -> str:
        """The search page."""
        return f"{self._base}/search" + _query({"q": text})

    def look(self, token: str = "", part: str = "") -> str:
        """Where pictures are shown to the network, if they are; what it made of one."""
        return "/".join((f"{self._base}/look", *filter(None, (token, part)))) if self._looks else ""

    def noted(self, tag: str = "") -> str:
        """The page of all that is noted, where it comes to a tag."""
        return f"{self._base}/noted" + (f"#tag-{segment(tag)}" if tag else "")

    def compared(self, name: str, words: Mapping[str, str | int] = {}) -> str:
        """The page of a comparison with another run."""
        return f"{self._base}/compare/{segment(name)}{_query(words)}"

    def pair(self, name: str, layer: str, unit: int) -> str:
        """The page of a unit beside its best match in another run."""
        return f"{self.compared(name)}/{self._layers[layer]}/{unit}" if layer in self._layers else ""

    def training(self, words: Mapping[str, str | int] = {}) -> str:
        """The page of all units through checkpoints of training."""
        return f"{self._base}/training{_query(words)}"

    def noting(self) -> str:
        """Where forms with notes go."""
        return f"{self._base}/notes"

    def rows(self, *parts: str | int, **words: str | int) -> str:
        """What the server has for programs."""
        named = (self._layers[str(part)] if at and parts[at - 1] == "layer" else part for at, part in enumerate(parts))
        return "/".join((f"{self._base}/api", *map(str, named))) + _query(words)

    def map(self, by: str = "units", layer: str = "", unit: int = 0) -> str:
        """The page of a map, where a unit stands out if a `layer` is given."""
        return f"{self._base}/map/{by}{on_map(layer, unit)}"

    def map_data(self, by: str) -> str:
        """The file of a map's points."""
        return f"{self._base}/map/{by}.bin?v={self._version}"

    def map_picture(self, by: str) -> str:
        """A map as a picture."""
        return f"{self._base}/map/{by}.png?v={self._version}"

    def taken(self, layer: str, unit: int, name: str) -> str:
        """A file of a unit."""
        return f"{self._base}/take/{self._layers[layer]}/{unit}/{name}"

    def picture(self, picture: Picture, side: int = 0) -> str:
        """A picture out of a table, with pixels to spare for screens that are finer than they say."""
        enough = next((each for each in SIDES if each >= 2 * side), SIDES[-1])
        what = "/".join((picture.kind, *map(segment, picture.marks)))
        place = f"{self._base}/picture/{self._layers[picture.layer]}/{picture.unit}/{what}?v={self._version}"
        return f"{place}&side={enough}" if side else place

    def cut(self, picture: Picture) -> None:
        """The server cuts pictures itself."""

    def whole(self, image_id: int) -> str:
        """An image, reduced for the page."""
        return f"{self._base}/whole/{image_id}?v={self._version}"

    def static(self, name: str) -> str:
        """A file of the atlas itself."""
        return f"{self._base}/static/{name}?v={stamp(name)}"
