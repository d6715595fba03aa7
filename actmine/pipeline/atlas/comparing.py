"""A run beside another that it was compared with: the best match of every unit, both ways, and exemplars in common."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from actmine.pipeline.atlas.elsewhere import Other
from actmine.pipeline.atlas.links import segment
from actmine.pipeline.atlas.matches import Matches
from actmine.pipeline.atlas.queries import Queries
from actmine.pipeline.atlas.records import Exemplar
from actmine.pipeline.run_tables import compared
from actmine.schemas.chance import LEVEL

_COLUMNS = ("layer", "unit", "rank", "other_layer", "other_unit", "similarity", "chance", "q_value")


@dataclass(frozen=True, slots=True)
class Best:
    """The best match of each unit that has one, as columns `[N]`; layers are places in `layers` and `other_layers`."""

    layers: tuple[str, ...]
    other_layers: tuple[str, ...]
    layer: np.ndarray
    unit: np.ndarray
    other_layer: np.ndarray
    other_unit: np.ndarray
    similarity: np.ndarray
    chance: np.ndarray
    q_value: np.ndarray

    @property
    def beyond(self) -> np.ndarray:
        """Which of them are more alike than chance makes them `[N]`."""
        return self.q_value < LEVEL

    def pairs(self) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
        """Each unit and its best match, by layer and number."""
        columns = (self.layer, self.unit, self.other_layer, self.other_unit)
        for layer, unit, there, its in zip(*(each.tolist() for each in columns), strict=True):
            yield (self.layers[layer], unit), (self.other_layers[there], its)

    def row(self, at: int) -> dict[str, Any]:
        """One of them by the names of the table."""
        return {
            "layer": self.layers[self.layer[at]], "unit": int(self.unit[at]), "rank": 0,
            "other_layer": self.other_layers[self.other_layer[at]], "other_unit": int(self.other_unit[at]),
            "similarity": float(self.similarity[at]), "chance": float(self.chance[at]),
            "q_value": float(self.q_value[at]),
        }  # fmt: skip


class Comparison:
    """A run and another: `best` of the run's units in the other, and `back` the other way, where that was compared."""

    def __init__(self, name: str, queries: Queries, other: Other | None, units: int) -> None:
        self.name, self.other, self.units = name, other, units
        self.best = _read(queries, name, list(other.queries.layers) if other else [])
        self.back_name = _name_back(queries, other)
        self.back = _read(other.queries, self.back_name, list(queries.layers)) if other and self.back_name else None

    @cached_property
    def mutual(self) -> np.ndarray:
        """Which of the best matches have as their own best match the unit itself `[N]`."""
        if self.back is None:
            return np.zeros(len(self.best.unit), bool)
        back = dict(self.back.pairs())
        return np.array([back.get(its) == own for own, its in self.best.pairs()], bool)

    @cached_property
    def flows(self) -> list[tuple[str, int, int, list[float]]]:
        """Of each layer: how many units have a match at all, beyond chance, and of those the share `[L]` whose match
        lies in each of the other's layers."""
        found = []
        for number, layer in enumerate(self.best.layers):
            its = self.best.layer == number
            beyond = its & self.best.beyond
            counts = np.bincount(self.best.other_layer[beyond], minlength=len(self.best.other_layers))
            found.append((layer, int(its.sum()), int(beyond.sum()), (counts / max(counts.sum(), 1)).tolist()))
        return found


class Comparisons:
    """The comparisons of a run, each read when it is first looked at."""

    def __init__(self, queries: Queries, matches: Matches) -> None:
        self._queries, self._matches = queries, matches
        self._lock = threading.Lock()
        self._known: dict[str, Comparison] = {}

    def named(self, address: str) -> Comparison | None:
        """That whose name stands in an address so; None where there is none. Raises `UserError` for a damaged table."""
        name = next((each for each in self._matches.names() if segment(each) == address), None)
        if name is None:
            return None
        with self._lock:
            if name not in self._known:
                about = self._queries.run.record.get("matches", {}).get(name, {})
                layers = about.get("layers") or list(self._queries.layers)
                units = sum(self._queries.layers[each].units for each in layers if each in self._queries.layers)
                self._known[name] = Comparison(name, self._queries, self._matches.other(name), units)
            return self._known[name]


def _name_back(queries: Queries, other: Other | None) -> str:
    """What the other run calls its comparison with this one, as this one is now; empty where it has none."""
    if other is None:
        return ""
    record = other.queries.run.record
    for name in compared(record, queries.run.path):
        if record["matches"][name].get("other_fingerprint") == queries.run.record.get("fingerprint"):
            return name
    return ""


def _read(queries: Queries, name: str, others_in_order: Sequence[str]) -> Best:
    rows = queries.reading.rows(queries.run.path / "matches" / f"{name}.parquet", _COLUMNS, keep=False)
    if rows is None:
        none = np.empty(0, np.int64)
        return Best((), (), none, none, none, none, none.astype(float), none.astype(float), none.astype(float))
    columns = {each: rows[each].to_numpy(zero_copy_only=False) for each in rows.column_names}
    first = columns["rank"] == 0
    columns = {each: values[first] for each, values in columns.items()}
    layers = _in_order(columns["layer"], list(queries.layers))
    others = _in_order(columns["other_layer"], others_in_order)
    nothing = np.full(int(first.sum()), np.nan)
    return Best(
        layers, others, _places(columns["layer"], layers), columns["unit"], _places(columns["other_layer"], others),
        columns["other_unit"], columns["similarity"], columns.get("chance", nothing), columns.get("q_value", nothing),
    )  # fmt: skip


def _in_order(names: np.ndarray, order: Sequence[str]) -> tuple[str, ...]:
    there = list(dict.fromkeys(names.tolist()))
    known = {name: at for at, name in enumerate(order)}
    return tuple(sorted(there, key=lambda name: known.get(name, len(known))))


def _places(names: np.ndarray, layers: Sequence[str]) -> np.ndarray:
    at = {name: place for place, name in enumerate(layers)}
    return np.array([at[name] for name in names.tolist()], np.int64)


def in_common(ours: Sequence[Exemplar], theirs: Sequence[Exemplar]) -> set[int]:
    """The images that are exemplars of both."""
    return {each.image_id for each in ours} & {each.image_id for each in theirs}
