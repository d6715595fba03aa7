"""Compares two runs over the same dataset: of every unit of one those of the other that respond to the same images."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from actmine.pipeline import record
from actmine.pipeline.errors import UserError
from actmine.pipeline.progress import Progress, Silent
from actmine.pipeline.relations.nearest import Nearest, check_search
from actmine.pipeline.relations.neighbors import Pairs, alike, sketch_length, stated
from actmine.pipeline.relations.unrelated import Unrelated
from actmine.pipeline.run import Run
from actmine.pipeline.run_tables import absolute, compared
from actmine.pipeline.storage.files import alone, readable_name
from actmine.pipeline.storage.fingerprint import fingerprint
from actmine.pipeline.storage.parquet import read_rows, write_table
from actmine.pipeline.tables.sketch_tables import UnitSketches, read_sketches, read_variance
from actmine.pipeline.words import EXACT, MATCHED
from actmine.schemas.chance import LEVEL
from actmine.schemas.matches import MATCHES


def compare_runs(
    run: Run,
    other: Run,
    layers: Sequence[str] = (),
    device: torch.device | str = "cpu",
    progress: Progress = Silent(),
    search: str = EXACT,
    most: int = MATCHED,
) -> Path:
    """Writes the `most` best matches among `other`'s units of each unit of `layers` of `run` (all if empty).

    Returns the table's file, `matches/NAME.parquet` of `run` with the name of the other's folder, and a hash of its
    path where another run has that name already; it replaces what was there of the same run. Raises `UserError` for
    runs that cannot be compared: over other datasets, without sketches, or with sketches of another length. Images
    that only one of them saw are counted and said.
    """
    check_search(search)
    length = comparable(run, other)
    _say_skips(run, other, progress)
    start = time.perf_counter()
    names = list(layers or run.record["layers"])
    ours = read_sketches(run.path, run.record["layers"], length)  # all: what is by chance does not hang on `layers`
    theirs = read_sketches(other.path, other.record["layers"], length)
    with alone(run.path, progress.say):
        written = record.read_record(run.path)
        path = run.path / "matches" / f"{_name(written, other.path)}.parquet"
        pairs = _matched(ours, names, Nearest(theirs.vectors, device, search), most, progress)
        variance = read_variance(run.path, ours), read_variance(other.path, theirs)
        pairs = pairs.beside(Unrelated(ours, variance[0], theirs, variance[1]))
        write_table(path, MATCHES, alike(ours, theirs, pairs))
        written.setdefault("matches", {})[path.stem] = {
            "other": absolute(other.path),
            "other_fingerprint": other.record["fingerprint"],
            "layers": names,
            "most": most,
            **stated(length, search),
            "chance": pairs.about,
            "seconds": round(time.perf_counter() - start, 3),
        }
        record.write_record(run.path, written)
    return path


def _name(written: Mapping[str, Any], other: Path) -> str:
    """What the table of a comparison is called: as it was before, or as the other's folder, if no other has that."""
    plain = readable_name(other.name)
    if same := compared(written, other, moved=False):
        return same[0]
    taken = {name.casefold() for name in written.get("matches", {})}
    return plain if plain.casefold() not in taken else f"{plain}~{fingerprint({'run': absolute(other)})[:10]}"


@dataclass(frozen=True, slots=True)
class Best:
    """What a comparison came to: `pairs`, rows of `MATCHES`, the best match of each unit, best first, of them those
    `beyond` chance, and how many units had no variance to compare by."""

    pairs: pa.Table
    beyond: pa.Table
    silent: int


def best_pairs(path: Path, units: int) -> Best:
    """Of each unit of the file of a comparison its best match, best first; `units` were asked for."""
    rows = read_rows(path)
    rows = rows.filter(pa.compute.equal(rows["rank"], 0))
    order = np.argsort(-rows["similarity"].to_numpy(), kind="stable")
    pairs = rows.take(pa.array(order))
    return Best(pairs, pairs.filter(pa.compute.less(pairs["q_value"], LEVEL)), units - len(rows))


def _matched(ours: UnitSketches, layers: Sequence[str], nearest: Nearest, most: int, progress: Progress) -> Pairs:
    own = np.flatnonzero(np.isin(ours.layer, [ours.layers.index(name) for name in layers]))
    with progress.stage("Comparing units", len(own), "units") as advance:
        return Pairs.of(nearest(ours.vectors[own], most, advance), own)


def comparable(run: Run, other: Run) -> int:
    """The length of the sketches of both. Raises `UserError` naming what they differ in."""
    ours, theirs = run.record, other.record
    if ours["dataset_fingerprint"] != theirs["dataset_fingerprint"]:
        words = [
            f"{each.path} over {each.record['dataset']} ({each.record['dataset_fingerprint'][:12]})"
            for each in (run, other)
        ]
        raise UserError(
            f"RUN and OTHER were mined on different datasets: {' and '.join(words)}. Units are compared by what they "
            "do on the same images: mine both networks over the same DATASET."
        )
    lengths = sketch_length(ours), sketch_length(theirs)
    for each, length in zip((run, other), lengths, strict=True):
        if not length:
            raise UserError(
                f"{each.path} was mined without sketches, by which units are compared. Mine it in another RUN, "
                f"with --sketch {max(lengths) or 'above 0'}."
            )
    if lengths[0] != lengths[1]:
        raise UserError(
            f"The sketches of {run.path} have length {lengths[0]}, those of {other.path} {lengths[1]}: they do not "
            f"compare. Mine one of them in another RUN with the other's --sketch."
        )
    return lengths[0]


def _say_skips(run: Run, other: Run, progress: Progress) -> None:
    """Says how many samples only one of them saw, if there are any: there the other's units count as silent."""
    skipped = [
        set(zip(*(rows[name].to_pylist() for name in ("shard", "position")), strict=True))
        for each in (run, other)
        for rows in [read_rows(each.path / "skipped.parquet", ["shard", "position"])]
    ]
    if only := len(skipped[0] ^ skipped[1]):
        progress.say(
            f"{only} of {run.record['counts']['samples']:,} samples were seen by only one of the two runs "
            f"({len(skipped[0])} and {len(skipped[1])} skipped): similarities are a little low for it."
        )
