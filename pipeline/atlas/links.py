"""Addresses of pages and pictures: one interface, answered by the server's paths or by relative files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
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

    def unit(self, layer: str, unit: int) -> str:
        """A unit's page."""

    def image(self, image_id: int, page: int = 1, mark: str = "") -> str:
        """An image's page, where `mark` (`layer_mark`) has one unit's box stand out."""

    def search(self, text: str = "") -> str:
        """The search page."""

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
        asked = {
            "sort": choice.sort if choice.sort != "unit" else "", "reverse": "1" if choice.reverse else "",
            "label": choice.label, "page": choice.page if choice.page > 1 else "",
        }  # fmt: skip
        words = urlencode({name: value for name, value in asked.items() if value})
        return f"/layer/{self._layers[layer]}" + (f"?{words}" if words else "")

    def unit(self, layer: str, unit: int) -> str:
        """A unit's page."""
        return f"{self.layer(layer)}/{unit}" if layer in self._layers else ""

    def image(self, image_id: int, page: int = 1, mark: str = "") -> str:
        """An image's page."""
        return f"/image/{image_id}" + (f"?page={page}" if page > 1 else "") + (f"#{mark}" if mark else "")

    def search(self, text: str = "") -> str:
        """The search page."""
        return "/search" + (f"?{urlencode({'q': text})}" if text else "")

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
