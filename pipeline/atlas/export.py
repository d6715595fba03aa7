"""Writes a run's atlas as plain files: the pages of the server, for a folder or any web host."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.atlas import pages
from pipeline.atlas.catalogue import Catalogue
from pipeline.atlas.images import topping
from pipeline.atlas.layer_pages import choices, sorts_of
from pipeline.atlas.links import BY_NUMBER, FROM_ANYWHERE, Came, Choice, Picture, asked_of, segment, segments
from pipeline.atlas.matches import Matches
from pipeline.atlas.pictures import Wholes, absence, kind_of, stored_picture
from pipeline.atlas.queries import Queries
from pipeline.choose import choose_layers
from pipeline.errors import UserError, first_line
from pipeline.progress import Progress, Silent
from pipeline.run import Run
from pipeline.storage.files import remove_files

MARKER = "actmine-atlas.json"
"""The file that says that a folder holds an atlas of ours, which may be written over."""
_PARTS = ("layer", "image", "picture", "whole", "static", "index.html", "search.html")


class Files:
    """Addresses of exported pages, relative to a page so many folders down; writes every picture that is asked for."""

    def __init__(self, out: Path, queries: Queries, wholes: Wholes) -> None:
        self.out, self.queries, self.wholes, self.matches = out, queries, wholes, Matches(queries)
        self.layers = segments(queries.layers)
        self.images: dict[int, None] = {}
        self.depth = 0
        self._written: dict[Picture | int, str] = {}
        self._folders: set[Path] = set()

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
        """An image's page, which will have to be written."""
        self.images.setdefault(image_id)
        return self._to(image_file(image_id, page)) + (f"#{mark}" if mark else "")

    def search(self, text: str = "") -> str:
        """The search page."""
        return self._to("search.html")

    def picture(self, picture: Picture) -> str:
        """A picture, written if it was not before."""
        if picture not in self._written:
            data = stored_picture(self.queries, picture, self.matches) or absence((1, 1))
            name = "/".join((self.layers[picture.layer], str(picture.unit), picture.kind, *map(segment, picture.marks)))
            self._written[picture] = self.write(f"picture/{name}.{kind_of(data)}", data)
        return self._to(self._written[picture])

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
            file.write(data.encode("utf-8", "replace") if isinstance(data, str) else data)
        return name

    def page(self, name: str, make: Callable[[], str | None]) -> None:
        """Writes a page, whose addresses are relative to where it is."""
        self.depth = name.count("/")
        made = make()
        if made is not None:
            self.write(name, made)

    def _to(self, name: str) -> str:
        return "../" * self.depth + name


def layer_file(address: str, choice: Choice) -> str:
    """The file of a layer's page, as its units are chosen there; of labels there is none."""
    if choice == BY_NUMBER:
        return f"layer/{address}.html"
    return f"layer/{address}/by-{choice.sort}{'-reversed' if choice.reverse else ''}-{choice.page}.html"


def image_file(image_id: int, page: int) -> str:
    """The file of an image's page."""
    return f"image/{image_id}{f'-{page}' if page > 1 else ''}.html"


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: the page to open, and how many layers, units and images have pages."""

    page: Path
    layers: int
    units: int
    images: int


def export(run: Run, out: str, layers: Sequence[str], progress: Progress | None = None) -> Exported:
    """Writes the pages of the layers that the names and globs select (all: none) into the folder `out`.

    Of a run that is not `trusted` no file of this machine goes into them that it does not know by its bytes. Raises
    `UserError` where `out` holds something else, cannot be written, or a name selects no layer.
    """
    folder = _folder(out)
    run.only_summed = True
    queries = Queries(run, choose_layers(run, layers))
    files = Files(folder, queries, Wholes(queries))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.write(MARKER, json.dumps({"run": queries.version, "layers": list(queries.layers)}) + "\n")
        remove_files(folder / part for part in _PARTS)
        _write(files, progress or Silent())
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or first_line(error)}). Free the disk, make it "
                        "writable, or choose another OUT.") from error  # fmt: skip
    units = sum(layer.units for layer in queries.layers.values())
    return Exported(folder / "index.html", len(queries.layers), units, len(files.images))


def _write(files: Files, progress: Progress) -> None:
    queries = files.queries
    atlas = pages.Atlas(queries, files.wholes, files.matches, files, exported=True)
    for name in pages.STATIC:
        files.write(f"static/{name}", (pages.HERE / "static" / name).read_bytes())
    files.page("index.html", lambda: pages.run_page(atlas))
    files.page("search.html", lambda: pages.search_page(atlas, ""))
    total = sum(layer.units for layer in queries.layers.values())
    who = topping(queries.run.path, queries.reading, list(queries.layers), queries.end)
    with progress.stage("Writing pages of units", total, "units") as advance:
        for layer, address in files.layers.items():
            for choice in choices(queries.units(layer)):
                files.page(
                    layer_file(address, choice),
                    lambda layer=layer, choice=choice: pages.layer_page(atlas, layer, choice),  # type: ignore[misc]
                )
            for unit in queries.units(layer).unit.tolist():
                files.page(
                    f"layer/{address}/{unit}.html",
                    lambda layer=layer, unit=unit: pages.unit_page(atlas, layer, unit, lambda: who),  # type: ignore[misc]
                )
                advance(1)
            orders = json.dumps(_orders(queries.units(layer)), ensure_ascii=True)
            files.write(f"layer/{address}/orders.js", f"window.atlasOrders = {orders};\n")
    with progress.stage("Writing pages of images", len(files.images), "images") as advance:
        for image_id in list(files.images):
            for page in range(1, pages.pages_of(who, image_id) + 1):
                files.page(
                    image_file(image_id, page),
                    lambda image=image_id, page=page: pages.image_page(atlas, who, image, page),  # type: ignore[misc]
                )
            advance(1)
    files.write("static/search.js", f"window.atlasIndex = {json.dumps(_index(files), ensure_ascii=True)};\n")


def _orders(units: Catalogue) -> dict[str, list[Any]]:
    """By what a layer's units are sorted and narrowed, a list each, in the order of their numbers."""
    found: dict[str, list[Any]] = {"unit": units.unit.tolist(), "label": [unit.said for unit in units.all]}
    for name in sorts_of(units):
        if name != "unit":
            found[name] = [None if value != value else value for value in units.values(name).tolist()]
    return found


def _index(files: Files) -> dict[str, object]:
    """What the exported search page looks through."""
    queries = files.queries
    labels: dict[str, list[tuple[int, int]]] = {}
    for number, layer in enumerate(files.layers):
        units = queries.units(layer)
        for name, its in units.named.items():
            labels.setdefault(name, []).extend((number, int(units.unit[row])) for _, _, row in its)
    return {
        "layers": [
            {"name": layer, "file": address, "units": queries.layers[layer].units}
            for layer, address in files.layers.items()
        ],
        "labels": sorted(labels.items()),
        "images": [each for each in queries.images.numbers_and_keys() if each[0] in files.images],
    }


def _folder(out: str) -> Path:
    if not out.strip():
        raise UserError("OUT is empty: say which folder the pages go to.")
    folder = Path(out)
    if "://" in out:
        raise UserError(f"OUT={out} is not a folder. Export to one, then copy it to where it is to be seen.")
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file()):
        raise UserError(f"{folder} holds other things than an atlas. Say an empty or a new folder as OUT.")
    return folder
