"""Adds `neighbors.parquet` to a mined run: of every unit those of the run that respond to the same images."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from pipeline import record
from pipeline.errors import UserError
from pipeline.progress import Progress, Silent
from pipeline.readings.sketches import Sketches, standard_error
from pipeline.relations.nearest import Nearest, check_search, described
from pipeline.storage.files import alone
from pipeline.storage.fingerprint import fingerprint
from pipeline.storage.parquet import read_rows, write_table
from pipeline.tables.sketch_tables import UnitSketches, read_sketches
from pipeline.words import EXACT
from schemas.neighbors import NEIGHBORS

MOST = 10
"""Neighbours of a unit."""
TOGETHER = 4096
"""Units whose nearest are looked for between two signs of progress."""


def sketch_length(written: dict[str, Any]) -> int:
    """How long the sketches of the run are whose record this is; 0 if it has none."""
    return int(written.get("sketch", 0)) if Sketches.fit(int(written["units"])) else 0


def find_neighbors(
    run: Path,
    device: torch.device | str = "cpu",
    progress: Progress = Silent(),
    search: str = EXACT,
    most: int = MOST,
) -> dict[str, Any]:
    """Writes the `most` nearest units of each unit of a mined run, over all its layers; returns the run's record.

    What is there stays: no search finds others. Raises `UserError` for a run without sketches, for an unknown search,
    and if the run cannot be written.
    """
    check_search(search)
    written = record.read_record(run)
    length = sketch_length(written)
    if not length:
        raise UserError(f"{run} was mined without sketches, by which units are compared. Mine it in another RUN.")
    known = fingerprint({"mined": written["fingerprint"], "most": most})
    if _finished(run, known):
        return written
    with alone(run, progress.say):
        if not _finished(run, known):  # by whoever we waited for
            _write(run, length, device, progress, search, most, known)
    return record.read_record(run)


def _finished(run: Path, known: str) -> bool:
    about = record.read_record(run).get("neighbors", {})
    path = run / "neighbors.parquet"
    return about.get("fingerprint") == known and path.is_file() and len(read_rows(path, ["rank"])) == about["rows"]


def _write(
    run: Path, length: int, device: torch.device | str, progress: Progress, search: str, most: int, known: str
) -> None:
    start = time.perf_counter()
    written = record.read_record(run)
    found = read_sketches(run, written["layers"], length)
    rows = 0

    def parts() -> Iterator[pa.Table]:
        nonlocal rows
        nearest = Nearest(found.vectors, device, search)
        with progress.stage("Finding units alike", len(found.unit), "units") as advance:
            for at in range(0, len(found.unit), TOGETHER):
                own = np.arange(at, min(at + TOGETHER, len(found.unit)))
                part = alike(found, own, found, *nearest(found.vectors[own], most, own))
                rows += len(part)
                yield part.rename_columns(NEIGHBORS.names)
                advance(len(own))

    write_table(run / "neighbors.parquet", NEIGHBORS, parts())
    written["neighbors"] = {
        "fingerprint": known,
        "most": most,
        "rows": rows,
        **stated(length, search),
        "seconds": round(time.perf_counter() - start, 3),
    }
    record.write_record(run, written)


def stated(length: int, search: str) -> dict[str, Any]:
    """What a record says of similarities: their length, their standard error, and what searched."""
    return {"length": length, "standard_error": round(standard_error(length), 5), "search": described(search)}


def alike(ours: UnitSketches, own: np.ndarray, theirs: UnitSketches, places: np.ndarray, found: np.ndarray) -> pa.Table:
    """Rows of units: layer, unit, rank, the other's layer and unit, similarity.

    `own` `[Q]` are places in `ours`, `places` and the similarities `found` `[Q, N]` those of `theirs`.
    """
    count = places.shape[1]
    other = places.reshape(-1)
    own = np.repeat(own, count)
    columns = {
        "layer": _named(ours, own),
        "unit": pa.array(ours.unit[own]),
        "rank": pa.array(np.tile(np.arange(count, dtype=np.int32), len(places))),
        "other_layer": _named(theirs, other),
        "other_unit": pa.array(theirs.unit[other]),
        "similarity": pa.array(found.reshape(-1)),
    }
    return pa.table(columns)


def _named(units: UnitSketches, places: np.ndarray) -> pa.Array:
    names = pa.array(units.layers, pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(units.layer[places]), names).dictionary_decode()
