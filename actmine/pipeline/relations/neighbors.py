"""Adds `neighbors.parquet` to a mined run: of every unit those of the run that respond to the same images."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch

from actmine.pipeline import record
from actmine.pipeline.errors import UserError
from actmine.pipeline.progress import Progress, Silent
from actmine.pipeline.readings.sketches import Sketches, standard_error
from actmine.pipeline.relations.nearest import Nearest, check_search, described
from actmine.pipeline.relations.unrelated import Unrelated
from actmine.pipeline.storage.files import alone
from actmine.pipeline.storage.fingerprint import fingerprint
from actmine.pipeline.storage.parquet import read_rows, write_table
from actmine.pipeline.storage.seals import is_whole
from actmine.pipeline.tables.evidence import false_discovery_rates
from actmine.pipeline.tables.sketch_tables import UnitSketches, read_sketches, read_variance
from actmine.pipeline.words import EXACT
from actmine.schemas.chance import LEVEL
from actmine.schemas.neighbors import NEIGHBORS

MOST = 10
"""Neighbours of a unit."""
_ROWS = 1 << 16


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
    known = fingerprint({"mined": written["fingerprint"], "most": most, "chance": 1})
    if _finished(run, known):
        return written
    with alone(run, progress.say):
        if not _finished(run, known):  # by whoever we waited for
            _write(run, length, device, progress, search, most, known)
    return record.read_record(run)


def _finished(run: Path, known: str) -> bool:
    about = record.read_record(run).get("neighbors", {})
    path = run / "neighbors.parquet"
    return about.get("fingerprint") == known and is_whole(path) and len(read_rows(path, ["rank"])) == about["rows"]


def _write(
    run: Path, length: int, device: torch.device | str, progress: Progress, search: str, most: int, known: str
) -> None:
    start = time.perf_counter()
    written = record.read_record(run)
    found = read_sketches(run, written["layers"], length)
    with progress.stage("Finding units alike", len(found.unit), "units") as advance:
        pairs = Pairs.of(Nearest(found.vectors, device, search).among(most, advance))
    pairs = pairs.beside(Unrelated(found, read_variance(run, found)))
    write_table(
        run / "neighbors.parquet",
        NEIGHBORS,
        (part.rename_columns(NEIGHBORS.names) for part in alike(found, found, pairs)),
    )
    written["neighbors"] = {
        "fingerprint": known,
        "most": most,
        "rows": len(pairs.own),
        **stated(length, search),
        "chance": pairs.about,
        "seconds": round(time.perf_counter() - start, 3),
    }
    record.write_record(run, written)


def stated(length: int, search: str) -> dict[str, Any]:
    """What a record says of similarities: their length, their standard error, and what searched."""
    return {"length": length, "standard_error": round(standard_error(length), 5), "search": described(search)}


@dataclass(frozen=True, slots=True)
class Pairs:
    """Units and those most alike them, as rows: places of both, rank and similarity; then chance and q-value `[R]`.

    `about` is what the record says of chance.
    """

    own: np.ndarray
    other: np.ndarray
    rank: np.ndarray
    similarity: np.ndarray
    chance: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    q_value: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, found: tuple[np.ndarray, np.ndarray], own: np.ndarray | None = None) -> Self:
        """What `Nearest` found, places and products `[Q, N]`, for the units at `own` `[Q]`, or for all."""
        places, products = found
        own = np.arange(len(places)) if own is None else own
        count = places.shape[1]
        rank = np.tile(np.arange(count, dtype=np.int32), len(places))
        return cls(np.repeat(own, count), places.reshape(-1), rank, products.reshape(-1))

    def beside(self, unrelated: Unrelated) -> Self:
        """The same with what unrelated units reach."""
        p, chance = unrelated(self.own, self.other, self.similarity)
        q = false_discovery_rates(p)
        first = self.rank == 0
        about = {
            "images": unrelated.images, "candidates": unrelated.candidates, "drawn": unrelated.drawn, "level": LEVEL,
            "permuted": round(unrelated.permuted, 4),
            "median": round(float(np.median(chance[first])), 4) if first.any() else None,
            "units": int(first.sum()), "beyond": int((q[first] < LEVEL).sum()),
        }  # fmt: skip
        return replace(self, chance=chance.astype(np.float32), q_value=q.astype(np.float32), about=about)


def alike(ours: UnitSketches, theirs: UnitSketches, pairs: Pairs) -> Iterator[pa.Table]:
    """Rows of units, in parts: layer, unit, rank, the other's layer and unit, similarity, chance, q-value."""
    for at in range(0, len(pairs.own), _ROWS):
        part = slice(at, at + _ROWS)
        own, other = pairs.own[part], pairs.other[part]
        columns = {
            "layer": _named(ours, own),
            "unit": pa.array(ours.unit[own]),
            "rank": pa.array(pairs.rank[part]),
            "other_layer": _named(theirs, other),
            "other_unit": pa.array(theirs.unit[other]),
            "similarity": pa.array(pairs.similarity[part]),
            "chance": pa.array(pairs.chance[part]),
            "q_value": pa.array(pairs.q_value[part]),
        }
        yield pa.table(columns)


def _named(units: UnitSketches, places: np.ndarray) -> pa.Array:
    names = pa.array(units.layers, pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(units.layer[places]), names).dictionary_decode()
