"""What of a run is published: which of its files, what each holds, and what stays behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pyarrow as pa

from actmine.pipeline.errors import UserError
from actmine.pipeline.notes import FILE as NOTES
from actmine.pipeline.run import Run
from actmine.pipeline.run_tables import missing
from actmine.pipeline.storage.files import is_local
from actmine.pipeline.storage.parquet import parquet_file
from actmine.pipeline.words import FROM_EXEMPLARS

ONE_FILE = ("layers", "images", "shards", "skipped", "neighbors")
OF_IMAGES = ("pictures", "crops")
FOLDERS = ("units", "exemplars", "labels", "visualizations", "maps", "sketches", "directions", "matches", "checkpoints",
           "atlas_points", "atlas_cells")  # fmt: skip
MADE_OF_IMAGES = ("views", "facets", "atlas_crops")
"""Tables by what they are: a file, a file with pixels of the dataset, files by layer, those made of its pixels."""
HOLDS = {
    "layers": "a layer: kind, units, map size, receptive field",
    "units": "a unit: statistics of its activations, labels with their evidence, its visualization",
    "exemplars": "a unit and rank: the image, the activation, the box in pixels of the original image",
    "labels": "a unit and label: mean and maximum activation, correlation",
    "visualizations": "a unit and recipe: what gradient ascent drew, and what it drives the unit to",
    "maps": "a unit and exemplar: the activation map, a byte a position",
    "neighbors": "a unit and rank: the units of the network most alike, and what chance reaches",
    "matches": "a unit and rank: the units of another network most alike",
    "checkpoints": "a unit and checkpoint of training: how like its last state it was, and what was lost",
    "directions": "a latent and rank: the latents whose directions lie nearest",
    "sketches": "a unit: numbers whose products estimate correlations of units, across networks too",
    "views": "a unit and exemplar: its activation projected back to pixels",
    "facets": "a unit and facet: exemplars that belong together, and a picture drawn from them",
    "atlas_points": "an image of an activation atlas: the position that was drawn of it, and its place on the map",
    "atlas_cells": "a cell of that map: its drawing, label, units and images, with the evidence",
    "atlas_crops": "an image that a cell shows: what its drawn position sees",
    "images": "an image that is an exemplar: key, label, size, CRC-32",
    "pictures": "an image that is an exemplar: a picture of it",
    "crops": "an image and box: the original pixels of small boxes",
    "shards": "a part of the dataset: samples seen and skipped",
    "skipped": "a skipped sample, and why",
}
"""What there is a row of in each table, in the order in which they are told."""
NEVER = "contact sheets, state of unfinished work, the matrix of all image activations"
"""What of a run is not published."""


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a publication, by its `name` below it: of which table, where it is now, bytes and rows there."""

    name: str
    table: str
    source: Path
    nbytes: int
    rows: int


def parts(run: Run, pictures: bool, notes: bool) -> list[Part]:
    """The files of a run that are published. Raises `UserError` where a table is missing or damaged."""
    found = list(_tables(run, pictures))
    if notes and is_local(run.path) and (run.path / NOTES).is_file():
        path = run.path / NOTES
        found.append(Part(NOTES, "notes", path, path.stat().st_size, len(path.read_bytes().splitlines())))
    return found


def _tables(run: Run, pictures: bool) -> Iterator[Part]:
    for table in (*ONE_FILE, *(OF_IMAGES if pictures else ())):
        path = run.path / f"{table}.parquet"
        if path.is_file():
            yield _part(path, path.name, table)
        elif table in ("layers", "images", "shards"):
            raise UserError(missing(path))
    for table in (*FOLDERS, *(MADE_OF_IMAGES if pictures else ())):
        for path in sorted((run.path / table).glob("*.parquet")):
            if (
                pictures
                or table != "visualizations"
                or not path.stem.endswith(tuple(f"-{each}" for each in FROM_EXEMPLARS))
            ):
                yield _part(path, f"{table}/{path.name}", table)


def _part(path: Path, name: str, table: str) -> Part:
    with parquet_file(path) as file:
        return Part(name, table, path, size_of(path), file.metadata.num_rows)


def size_of(path: Path) -> int:
    """How many bytes a file has, wherever it is."""
    if is_local(path):
        return path.stat().st_size
    with path.open("rb") as stream:
        return stream.seek(0, 2)


def rows_of(found: list[Part], table: str) -> int:
    """How many rows a table has."""
    return sum(each.rows for each in found if each.table == table)


def tables_of(found: list[Part]) -> list[str]:
    """The tables that have any rows, in the order in which they are told."""
    return [name for name in HOLDS if rows_of(found, name)]


def pixels_of_images(found: list[Part]) -> tuple[int, int]:
    """How many pictures of images of the dataset there are, and how many bytes they have."""
    count = size = 0
    for part in found:
        if part.table in ("pictures", "atlas_crops"):
            count += part.rows
        if part.table in (*OF_IMAGES, "atlas_crops"):
            size += part.nbytes
        elif part.table == "exemplars" and (held := crops_held(part.source)):
            count, size = count + held[0], size + held[1]
    return count, size


def crops_held(path: Path) -> tuple[int, int] | None:
    """How many crops a file of exemplars/ holds itself, as runs of versions before do, and their bytes; else None."""
    with parquet_file(path) as file:
        if "crop" not in file.schema_arrow.names:
            return None
        crops = cast(pa.ChunkedArray, file.read(["crop"])["crop"])
        count = len(crops) - crops.null_count
        return (count, int(crops.nbytes)) if count else None
