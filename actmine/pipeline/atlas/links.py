"""Addresses of pages and pictures: one interface, answered by the server's paths or by relative files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import urlencode

_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_LONGEST = 100


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a unit: `kind` is visualization, crop, heat, preset, facet, view or match; `marks` say which."""

    layer: str
    unit: int
    kind: str
    marks: tuple[str, ...] = ()


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

    def run(self) -> str:
        """The run's page."""

    def layer(self, layer: str, choice: Choice = BY_NUMBER) -> str:
        """A layer's page, its units as they are chosen."""

    def unit(self, layer: str, unit: int, came: Came = FROM_ANYWHERE) -> str:
        """A unit's page, from which it goes on as in the list that one came from."""

    def orders(self, layer: str) -> str:
        """A file by which an exported unit's page finds its place in a list; none on the server, which knows it."""

    def image(self, image_id: int, page: int = 1, mark: str = "") -> str:
        """An image's page, where `mark` (`layer_mark`) has one unit's box stand out."""

    def search(self, text: str = "") -> str:
        """The search page."""

    def noted(self, tag: str = "") -> str:
        """The page of all that is noted, where it comes to a tag."""

    def map(self, by: str = "units", layer: str = "", unit: int = 0) -> str:
        """The page of a map, where a unit stands out if a `layer` is given."""

    def map_data(self, by: str) -> str:
        """The file of a map's points."""

    def map_picture(self, by: str) -> str:
        """A map as a picture."""

    def taken(self, layer: str, unit: int, name: str) -> str:
        """A file of a unit, of those in `take_away.FILES`; none of exported pages."""

    def picture(self, picture: Picture) -> str:
        """A picture out of a table."""

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
    """Addresses on the server. `version` tells pictures of one state of the run from those of another."""

    def __init__(self, layers: dict[str, str], version: str) -> None:
        self._layers, self._version = layers, version

    def run(self) -> str:
        """The run's page."""
        return "/"

    def layer(self, layer: str, choice: Choice = BY_NUMBER) -> str:
        """A layer's page, its units as they are chosen."""
        if layer not in self._layers:
            return ""
        return f"/layer/{self._layers[layer]}{asked(choice)}"

    def unit(self, layer: str, unit: int, came: Came = FROM_ANYWHERE) -> str:
        """A unit's page, from which it goes on as in the list that one came from."""
        return f"{self.layer(layer)}/{unit}{asked_of(came)}" if layer in self._layers else ""

    def orders(self, layer: str) -> str:
        """None: the server knows a unit's place in a list."""
        return ""

    def image(self, image_id: int, page: int = 1, mark: str = "") -> str:
        """An image's page."""
        return f"/image/{image_id}" + (f"?page={page}" if page > 1 else "") + (f"#{mark}" if mark else "")

    def search(self, text: str = "") -> str:
        """The search page."""
        return "/search" + _query({"q": text})

    def noted(self, tag: str = "") -> str:
        """The page of all that is noted, where it comes to a tag."""
        return "/noted" + (f"#tag-{segment(tag)}" if tag else "")

    def map(self, by: str = "units", layer: str = "", unit: int = 0) -> str:
        """The page of a map, where a unit stands out if a `layer` is given."""
        return f"/map/{by}{on_map(layer, unit)}"

    def map_data(self, by: str) -> str:
        """The file of a map's points."""
        return f"/map/{by}.bin?v={self._version}"

    def map_picture(self, by: str) -> str:
        """A map as a picture."""
        return f"/map/{by}.png?v={self._version}"

    def taken(self, layer: str, unit: int, name: str) -> str:
        """A file of a unit."""
        return f"/take/{self._layers[layer]}/{unit}/{name}"

    def picture(self, picture: Picture) -> str:
        """A picture out of a table."""
        what = "/".join((picture.kind, *map(segment, picture.marks)))
        return f"/picture/{self._layers[picture.layer]}/{picture.unit}/{what}?v={self._version}"

    def cut(self, picture: Picture) -> None:
        """The server cuts pictures itself."""

    def whole(self, image_id: int) -> str:
        """An image, reduced for the page."""
        return f"/whole/{image_id}?v={self._version}"

    def static(self, name: str) -> str:
        """A file of the atlas itself."""
        return f"/static/{name}"
