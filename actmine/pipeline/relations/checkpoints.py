"""Follows the units of a network through checkpoints of its training: when each came to be, drifted, or was lost.

A unit keeps its number while a network trains. So it is compared with itself, and being one pair chosen beforehand its
null is that of one candidate. Whether what it was lives on is asked of all units of the last checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch

from actmine.pipeline import record
from actmine.pipeline.errors import UserError
from actmine.pipeline.progress import Progress, Silent
from actmine.pipeline.relations.compare import comparable
from actmine.pipeline.relations.nearest import Nearest, check_search
from actmine.pipeline.relations.neighbors import stated
from actmine.pipeline.relations.unrelated import Unrelated
from actmine.pipeline.run import Run
from actmine.pipeline.run_tables import absolute
from actmine.pipeline.storage.files import alone, table_file
from actmine.pipeline.storage.parquet import write_table
from actmine.pipeline.tables.evidence import false_discovery_rates
from actmine.pipeline.tables.sketch_tables import UnitSketches, UnitVariance, read_sketches, read_variance
from actmine.pipeline.words import EXACT
from actmine.schemas.chance import LEVEL
from actmine.schemas.checkpoints import CHECKPOINTS


@dataclass(frozen=True, slots=True)
class State:
    """The units of one checkpoint: sketches, where their variance comes from, and the place of each unit `[U]` of the
    last run among them, -1 for one without variance."""

    sketches: UnitSketches
    variance: UnitVariance
    place: np.ndarray

    @classmethod
    def of(cls, run: Run, layers: Sequence[str], widths: Sequence[int], length: int) -> Self:
        """That of a run, of whose layers those of the last are taken."""
        found = read_sketches(run.path, layers, length)
        begin = np.concatenate([[0], np.cumsum(widths)])
        place = np.full(begin[-1], -1)
        place[begin[found.layer] + found.unit] = np.arange(len(found.unit))
        return cls(found, read_variance(run.path, found), place)

    def similarity(self, other: State) -> np.ndarray:
        """The correlation of each unit `[U]` with itself in another state; NaN where either does not vary."""
        there = np.flatnonzero((self.place >= 0) & (other.place >= 0))
        found = np.full(len(self.place), np.nan)
        ours, theirs = self.sketches.vectors[self.place[there]], other.sketches.vectors[other.place[there]]
        found[there] = np.einsum("ul,ul->u", ours.astype(np.float64), theirs)
        return found


@dataclass(frozen=True, slots=True)
class Followed:
    """What following came to: by checkpoint how many units vary, are born, are lost, and their median similarity."""

    folder: Path
    names: list[str]
    units: int
    varying: list[int]
    born: list[int]
    lost: list[int]
    similarity: list[float | None]


def follow(
    run: Run,
    before: Sequence[Run],
    device: torch.device | str = "cpu",
    progress: Progress = Silent(),
    search: str = EXACT,
) -> Followed:
    """Writes `checkpoints/` of `run`, whose units are followed through the runs `before` it, the oldest first.

    Replaces what was there. Raises `UserError` for runs that cannot be compared, or of networks with other layers.
    """
    check_search(search)
    start = time.perf_counter()
    lengths = {comparable(run, each) for each in before}
    names, widths = _shared(run, before)
    (length,) = lengths
    last = State.of(run, names, widths, length)
    nearest = Nearest(last.sketches.vectors, device, search)
    with alone(run.path, progress.say), progress.stage("Following units", len(before), "checkpoints") as advance:
        columns: list[dict[str, np.ndarray]] = []
        previous: State | None = None
        for each in before:
            state = State.of(each, names, widths, length)
            columns.append(_columns(state, last, previous, nearest))
            previous = state
            advance(1)
        _mark_births(columns)
        begin = 0
        for layer, width in zip(names, widths, strict=True):
            path = table_file(run.path, "checkpoints", layer, new=True)
            write_table(path, CHECKPOINTS, [_rows(layer, slice(begin, begin + width), columns, last)])
            begin += width
        followed = _followed(run, before, columns, sum(widths))
        written = record.read_record(run.path)
        written["checkpoints"] = {
            "runs": [
                {"name": name, "place": absolute(each.path), "fingerprint": each.record["fingerprint"]}
                for name, each in zip(followed.names, before, strict=True)
            ],
            "layers": names, "units": followed.units, "varying": followed.varying, "born": followed.born,
            "lost": followed.lost, "similarity": followed.similarity, **stated(length, search), "level": LEVEL,
            "seconds": round(time.perf_counter() - start, 3),
        }  # fmt: skip
        record.write_record(run.path, written)
    return followed


def _shared(run: Run, before: Sequence[Run]) -> tuple[list[str], list[int]]:
    """The layers that all have, and how many units. Raises `UserError` where they are not of one network."""
    ours = dict(zip(run.layers["layer"], run.layers["units"], strict=True))
    names = list(ours)
    for each in before:
        theirs = dict(zip(each.layers["layer"], each.layers["units"], strict=True))
        names = [name for name in names if name in theirs]
        other = next((name for name in names if theirs[name] != ours[name]), None)
        if other is not None:
            raise UserError(
                f"{each.path} is of another network than {run.path}: its layer {other} has {theirs[other]} units, not "
                f"{ours[other]}. Checkpoints are of one network; others are compared without --checkpoints."
            )
        if not names:
            raise UserError(
                f"{each.path} and {run.path} have no layer in common. Mine checkpoints with the same LAYERS; other "
                "networks are compared without --checkpoints."
            )
    return names, [int(ours[name]) for name in names]


def _columns(state: State, last: State, previous: State | None, nearest: Nearest) -> dict[str, np.ndarray]:
    """What is said of all units `[U]` at one checkpoint."""
    units = len(last.place)
    similarity = state.similarity(last)
    there = np.flatnonzero(~np.isnan(similarity))
    q, chance = np.full(units, np.nan), np.full(units, np.nan)
    one = Unrelated(state.sketches, state.variance, last.sketches, last.variance, candidates=1)
    p, chance[there] = one(state.place[there], last.place[there], similarity[there])
    q[there] = false_discovery_rates(p)
    own = np.flatnonzero(state.place >= 0)
    heir, like, heir_q, heir_chance = (np.full(units, fill) for fill in (-1, np.nan, np.nan, np.nan))
    places, products = nearest(state.sketches.vectors, 1)
    if places.shape[1]:
        every = Unrelated(state.sketches, state.variance, last.sketches, last.variance)
        p, reached = every(np.arange(len(places)), places[:, 0], products[:, 0])
        at = state.place[own]
        heir[own], like[own], heir_chance[own] = places[at, 0], products[at, 0], reached[at]
        heir_q[own] = false_discovery_rates(p)[at]
    return {
        "varies": state.place >= 0, "last_similarity": similarity, "last_chance": chance, "last_q_value": q,
        "before_similarity": state.similarity(previous) if previous else np.full(units, np.nan),
        "heir": heir, "heir_similarity": like, "heir_chance": heir_chance, "heir_q_value": heir_q,
        "lost": (state.place >= 0) & ~(heir_q < LEVEL) & ~(q < LEVEL),
    }  # fmt: skip


def _mark_births(columns: list[dict[str, np.ndarray]]) -> None:
    """Says from which checkpoint on each unit is as it is in the end."""
    since = np.ones(len(columns[0]["varies"]), bool)
    for each in reversed(columns):
        since = since & (each["last_q_value"] < LEVEL)
        each["born"] = since


def _rows(layer: str, part: slice, columns: list[dict[str, np.ndarray]], last: State) -> pa.Table:
    """A layer's rows: of each unit one per checkpoint, the oldest first."""
    units, count = part.stop - part.start, len(columns)

    def woven(name: str) -> np.ndarray:
        return np.stack([each[name][part] for each in columns], 1).reshape(-1)

    heir = woven("heir").astype(np.int64)
    of = last.sketches
    found: dict[str, Any] = {
        "layer": pa.array([layer] * (units * count), pa.string()),
        "unit": np.repeat(np.arange(units, dtype=np.int32), count),
        "checkpoint": np.tile(np.arange(count, dtype=np.int32), units),
        "heir_layer": pa.array([of.layers[of.layer[at]] if at >= 0 else None for at in heir], pa.string()),
        "heir_unit": pa.array([int(of.unit[at]) if at >= 0 else None for at in heir], pa.int32()),
    }
    for field in CHECKPOINTS:
        if field.name not in found:
            values = woven(field.name)
            found[field.name] = pa.array(values, field.type, from_pandas=True)
    return pa.table([found[name] for name in CHECKPOINTS.names], schema=CHECKPOINTS)


def _followed(run: Run, before: Sequence[Run], columns: list[dict[str, np.ndarray]], units: int) -> Followed:
    return Followed(
        run.path / "checkpoints", _names(before), units, [int(each["varies"].sum()) for each in columns],
        [int(each["born"].sum()) for each in columns], [int(each["lost"].sum()) for each in columns],
        [_median(each["last_similarity"]) for each in columns],
    )  # fmt: skip


def _median(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return round(float(np.median(known)), 4) if len(known) else None


def _names(runs: Sequence[Run]) -> list[str]:
    """What checkpoints are called: their folders, with those above where that is not enough to tell them apart."""
    paths = [absolute(each.path).replace("\\", "/").rstrip("/").split("/") for each in runs]
    deep = next((n for n in range(1, 6) if len({"/".join(path[-n:]) for path in paths}) == len(paths)), 6)
    return ["/".join(path[-deep:]) for path in paths]
