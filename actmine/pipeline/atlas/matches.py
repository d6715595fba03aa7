"""The units of other runs that a unit was matched with, and their pictures where those runs are at hand."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from actmine.pipeline.atlas.links import Picture, segment
from actmine.pipeline.atlas.queries import CHANCE_COLUMNS, Queries, beyond_chance
from actmine.pipeline.atlas.records import Match, Unit
from actmine.pipeline.errors import UserError
from actmine.pipeline.run import open_run

_COLUMNS = ("layer", "rank", "other_layer", "other_unit", "similarity", *CHANCE_COLUMNS)


class Matches:
    """What `compare` found for the units of a run; the other runs are opened when they are first needed.

    A run is at hand if it is beside the run, or where it was compared, and was mined with the same settings as then.
    Where someone else's run says that it was compared with others is not looked at.
    """

    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self._lock = threading.Lock()
        self._others: dict[str, Queries | None] = {}

    def of(self, layer: str, unit: int) -> tuple[Match, ...]:
        """A unit's matches, run by run, best first. Raises `UserError` where their table cannot be read."""
        found = []
        for name in self._names():
            for row in self._rows(name, layer, unit):
                its = self._unit(name, row)
                picture = Picture(layer, unit, "match", (segment(name), str(row["rank"])))
                found.append(Match(
                    name, row["other_layer"], row["other_unit"], row["similarity"],
                    picture if its and its.picture else None, bool(its and its.drawn), its.label if its else None,
                    *beyond_chance(row), crisp=self._crisp(name, its),
                ))  # fmt: skip
        return tuple(found)

    def behind(self, picture: Picture) -> tuple[Queries, Picture] | None:
        """The other run and its picture that a picture of a match stands for; None where there is none."""
        if len(picture.marks) != 2:
            return None
        name = next((name for name in self._names() if segment(name) == picture.marks[0]), "")
        rows = self._rows(name, picture.layer, picture.unit) if name else []
        row = next((row for row in rows if str(row["rank"]) == picture.marks[1]), None)
        its = self._unit(name, row) if row else None
        other = self._other(name)
        return (other, its.picture) if other and its and its.picture else None

    def _names(self) -> list[str]:
        return sorted(path.stem for path in (self._queries.run.path / "matches").glob("*.parquet"))

    def _rows(self, name: str, layer: str, unit: int) -> list[dict[str, Any]]:
        rows = self._queries.reading.rows(self._queries.run.path / "matches" / f"{name}.parquet", _COLUMNS, unit)
        found = [row for row in (rows.to_pylist() if rows is not None else ()) if row["layer"] == layer]
        return sorted(found, key=lambda row: row["rank"])

    def _unit(self, name: str, row: dict[str, Any]) -> Unit | None:
        other = self._other(name)
        try:
            there = other is not None and row["other_layer"] in other.layers
            return other.tile(row["other_layer"], row["other_unit"]) if other and there else None
        except UserError:
            return None  # its tables are damaged, and it is not this run that is looked at

    def _crisp(self, name: str, its: Unit | None) -> bool:
        other = self._other(name)
        return bool(other and its and other.crisp(its))

    def _other(self, name: str) -> Queries | None:
        with self._lock:
            if name not in self._others:
                self._others[name] = self._opened(name)
            return self._others[name]

    def _opened(self, name: str) -> Queries | None:
        about = self._queries.run.record.get("matches", {}).get(name)
        if not isinstance(about, dict) or not isinstance(about.get("other"), str):
            return None
        if "published" in self._queries.run.record:
            return None  # whatever lies beside a published run is no part of it
        run, folder = self._queries.run, Path(about["other"]).name
        for place in (run.path.parent / (folder or name), *([about["other"]] if run.trusted else [])):
            try:
                other = open_run(place)
                if other.record.get("fingerprint") == about.get("other_fingerprint"):
                    return Queries(other)
            except UserError:
                continue
        return None
