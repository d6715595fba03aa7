"""Writes a run's atlas as plain files: the pages of the server, for a folder or any web host."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actmine.pipeline.atlas import pages
from actmine.pipeline.atlas.catalogue import Catalogue
from actmine.pipeline.atlas.cell_pages import cell_page, cells_page
from actmine.pipeline.atlas.cells import levels, mapped
from actmine.pipeline.atlas.exported_files import Files, cell_file, cells_file, image_file, layer_file
from actmine.pipeline.atlas.extent import EVERYTHING, Extent
from actmine.pipeline.atlas.images import Topping, topping
from actmine.pipeline.atlas.layer_pages import choices, sorts_of
from actmine.pipeline.atlas.maps import Maps, as_script, written_shots
from actmine.pipeline.atlas.others import Others
from actmine.pipeline.atlas.pictures import Wholes, light, reduced
from actmine.pipeline.atlas.queries import Queries
from actmine.pipeline.atlas.rendering import OF_CELLS, OF_MAPS, OF_SERVER, environment
from actmine.pipeline.choose import choose_layers
from actmine.pipeline.errors import UserError, first_line
from actmine.pipeline.notes import Notes
from actmine.pipeline.progress import Progress, Silent, in_bytes
from actmine.pipeline.run import Run
from actmine.pipeline.storage.files import remove_files, table_file

MARKER = "actmine-atlas.json"
"""The file that says that a folder holds an atlas of ours, which may be written over."""
_PARTS = (
    "layer", "cells", "image", "picture", "whole", "static", "map", "index.html", "search.html", "noted.html",
)  # fmt: skip
_ALWAYS = (
    10  # files of every export: the run's page, the search and what it looks through, notes, what pages need, marker
)
_A_PAGE, _AN_IMAGE_PAGE, _AN_EXEMPLAR, _A_TILE, _A_DRAWING, _A_PIXEL = 17_000, 2500, 850, 700, 3000, 0.11
"""About how many bytes a page takes, that of an image, an exemplar on either, a unit on that of its layer, a drawing,
and a pixel of a whole image."""
_A_CELL, _A_SHOT = 24_000, 4500
"""A cell of an activation atlas: its page, its drawing; a crop of it, or a picture out of another run."""
_OF_A_MAP, _A_POINT = 3, 130
"""A map has a page, its points and its picture; about how many bytes a point takes."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: the page to open; how many layers, units and images have pages; files, and bytes in them."""

    page: Path
    layers: int
    units: int
    images: int
    files: int
    nbytes: int


def export(
    run: Run, out: str, layers: Sequence[str], progress: Progress | None = None, extent: Extent = EVERYTHING
) -> Exported:
    """Writes the pages of the layers that the names and globs select (all: none) into the folder `out`.

    Of a run that is not `trusted` no file of this machine goes into them that it does not know by its bytes. Raises
    `UserError` where `out` holds something else, cannot be written, or a name selects no layer.
    """
    folder = _folder(out)
    run.only_summed = True
    queries = Queries(run, choose_layers(run, layers))
    files = Files(folder, queries, Wholes(queries, light), extent)
    who = topping(queries.run.path, queries.reading, list(queries.layers), queries.end)
    progress = progress or Silent()
    try:
        planned(files, who, progress)
        folder.mkdir(parents=True, exist_ok=True)
        files.write(MARKER, json.dumps({"run": queries.version, "layers": list(queries.layers)}) + "\n")
        remove_files(folder / part for part in _PARTS)
        _write(files, who, progress)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or first_line(error)}). Free the disk, make it "
                        "writable, or choose another OUT.") from error  # fmt: skip
    units = sum(layer.units for layer in queries.layers.values())
    return Exported(folder / "index.html", len(queries.layers), units, len(files.images), files.count, files.nbytes)


def planned(files: Files, who: Topping, progress: Progress) -> tuple[int, int]:
    """Says how many files an export will have and about how many bytes, both of which are the answer.

    Raises `UserError` where the disk has less room, what an export before takes there counted as free.
    """
    folder = files.out
    count, nbytes = estimate(files.queries, who, files.extent, files.others)
    progress.say(f"Planned: about {count:,} files of together {in_bytes(nbytes)}")
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    before = sum(path.lstat().st_size for part in _PARTS for path in (folder / part, *(folder / part).rglob("*"))
                 if path.is_file() and not path.is_symlink())  # fmt: skip
    free = shutil.disk_usage(there).free + before
    if nbytes > free:
        raise UserError(f"{folder} has room for {in_bytes(free)}, and the pages need about {in_bytes(nbytes)}: "
                        "free some, choose fewer LAYERS, or another OUT.")  # fmt: skip
    return count, nbytes


def estimate(
    queries: Queries, who: Topping, extent: Extent = EVERYTHING, others: Others | None = None
) -> tuple[int, int]:  # fmt: skip
    """About how many files an export will have, and bytes; with pictures of `others`, where pages show them."""
    names = list(queries.layers)
    pages_of_layers = sum(1 for name in names for _ in choices(queries.units(name)))
    of_units = [queries.units(name) for name in names]
    units, drawn = sum(map(len, of_units)), sum(int(each.drawn.sum()) for each in of_units)
    chosen = who.rank < extent.exemplars if extent.exemplars else np.ones(len(who.rank), bool)
    of_image = np.repeat(who.images, np.diff(who.first))
    images = np.unique(of_image[chosen]).tolist() if extent.pictures else []
    pages_of_images = sum(pages.pages_of(who, each) for each in images) if extent.image_pages else 0
    on_images = int(np.isin(of_image, images).sum()) if extent.image_pages else 0
    html = _ALWAYS + len(names) + pages_of_layers + units + pages_of_images
    sizes = filter(None, map(queries.images.size, images))
    whole = sum(round(width * height * reduced((width, height)) ** 2) for width, height in sizes)
    nbytes = round(
        _A_PAGE * (html - pages_of_images) + _AN_IMAGE_PAGE * pages_of_images
        + _AN_EXEMPLAR * (int(chosen.sum()) + on_images) + _A_TILE * units * pages_of_layers / max(len(names), 1)
        + _A_DRAWING * drawn + _A_PIXEL * whole
    )  # fmt: skip
    cells, shown = extent_of_cells(queries, extent.pictures)
    maps = len(Maps(queries).there)
    beside = others.pictured(units) if others and extent.pictures else 0
    count = html + drawn + len(images) + 2 * cells + shown + beside + _OF_A_MAP * maps + len(OF_MAPS) * bool(maps)
    nbytes += _A_CELL * cells + _A_SHOT * (shown + beside) + _A_POINT * maps * max(units, len(images))
    return count, nbytes


def extent_of_cells(queries: Queries, pictures: bool) -> tuple[int, int]:
    """How many cells activation atlases have, and how many crops of images pages show of them."""
    cells = sum(len(level.tiles) for name in mapped(queries) for level in levels(queries, name))
    tables = [queries.reading.rows(table_file(queries.run.path, "atlas_crops", name), ("image_id",), keep=False)
              for name in mapped(queries)]  # fmt: skip
    return cells, sum(len(rows) for rows in tables if rows is not None) if pictures else 0


def _write(files: Files, who: Topping, progress: Progress) -> None:
    queries = files.queries
    atlas = pages.Atlas(queries, files.wholes, files.others, files, Notes(queries.run.path), exported=True,
                        extent=files.extent)  # fmt: skip
    maps = Maps(queries)
    unused = {*OF_SERVER, *(() if mapped(queries) else OF_CELLS), *(() if maps.there else OF_MAPS)}
    for name in (each for each in pages.STATIC if each not in unused):
        files.write(f"static/{name}", (pages.HERE / "static" / name).read_bytes())
    table = environment().get_template("keys.html").render()
    files.write("static/key-table.js", f"document.querySelector('[data-keys]').innerHTML = {json.dumps(table)};\n")
    files.page("index.html", lambda: pages.run_page(atlas))
    files.page("search.html", lambda: pages.search_page(atlas, ""))
    files.page("noted.html", lambda: pages.noted_page(atlas))
    total = sum(layer.units for layer in queries.layers.values())
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
    _write_cells(files, atlas)
    with progress.stage("Writing pages of images", len(files.images), "images") as advance:
        for image_id in list(files.images):
            for page in range(1, pages.pages_of(who, image_id) + 1):
                files.page(
                    image_file(image_id, page),
                    lambda image=image_id, page=page: pages.image_page(atlas, who, image, page),  # type: ignore[misc]
                )
            advance(1)
    for by in maps.there:
        files.page(f"map/{by}.html", lambda by=by: pages.map_page(atlas, maps, by))  # type: ignore[misc]
        data = maps.data(by, files, lambda points: written_shots(points, files, {*files.images}, files.extent.pictures))
        files.write(f"map/{by}.js", as_script(data or b""))
        files.write(f"map/{by}.png", maps.picture(by) or b"")
    files.write("static/search.js", f"window.atlasIndex = {json.dumps(_index(files), ensure_ascii=True)};\n")


def _write_cells(files: Files, atlas: pages.Atlas) -> None:
    """The maps of activation atlases, and a page for each of their cells."""
    for layer in mapped(files.queries):
        address = files.layers[layer]
        of = levels(files.queries, layer)
        for level in (None, *(each.number for each in of)):
            files.page(
                cells_file(address, level),
                lambda layer=layer, level=level: cells_page(atlas, layer, level),  # type: ignore[misc]
            )
        for tile in (tile for each in of for tile in each.tiles):
            files.page(cell_file(address, tile.level, tile.place), lambda tile=tile: cell_page(atlas, tile))  # type: ignore[misc]


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
