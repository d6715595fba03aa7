"""The units of other runs that a unit was matched with, and their pictures where those runs are at hand."""

from __future__ import annotations

from typing import Any

from actmine.pipeline.atlas.elsewhere import Elsewhere, Other, compared_with
from actmine.pipeline.atlas.links import Picture, segment
from actmine.pipeline.atlas.queries import CHANCE_COLUMNS, Queries, beyond_chance
from actmine.pipeline.atlas.records import Match

_COLUMNS = ("layer", "rank", "other_layer", "other_unit", "similarity", *CHANCE_COLUMNS)


class Matches:
    """What `compare` found for the units of a run."""

    def __init__(self, queries: Queries, elsewhere: Elsewhere) -> None:
        self._queries, self._elsewhere = queries, elsewhere

    def of(self, layer: str, unit: int) -> tuple[Match, ...]:
        """A unit's matches, run by run, best first. Raises `UserError` where their table cannot be read."""
        return tuple(
            self.match(name, row) for name in self.names() for row in self._rows(name, layer, unit)
        )  # fmt: skip

    def match(self, name: str, row: dict[str, Any]) -> Match:
        """A row of the table of a comparison as a record: `layer`, `unit`, `rank` and the columns of the other."""
        other = self.other(name)
        its = other.unit(row["other_layer"], row["other_unit"]) if other else None
        picture = Picture(row["layer"], row["unit"], "match", (segment(name), str(row["rank"])))
        return Match(
            name, row["other_layer"], row["other_unit"], row["similarity"], picture if its and its.picture else None,
            bool(its and its.drawn), its.label if its else None, *beyond_chance(row),
            crisp=bool(other and its and other.crisp(its)), place=other.place if other else "",
            address=other.segment(row["other_layer"]) if other else "",
        )  # fmt: skip

    def rows(self, layer: str, unit: int) -> list[dict[str, Any]]:
        """A unit's rows of `matches/` in the same order, with the other run's name. Raises `UserError` as `of` does."""
        return [row | {"unit": unit, "run": name} for name in self.names() for row in self._rows(name, layer, unit)]

    def behind(self, picture: Picture) -> tuple[Queries, Picture] | None:
        """The other run and its picture that a picture of a match stands for, or of one of the best match's exemplars
        (`beside`); None where there is none."""
        if picture.kind not in ("match", "beside") or len(picture.marks) != 2:
            return None
        name = next((name for name in self.names() if segment(name) == picture.marks[0]), "")
        rows = self._rows(name, picture.layer, picture.unit) if name else []
        rank = picture.marks[1] if picture.kind == "match" else "0"
        row = next((row for row in rows if str(row["rank"]) == rank), None)
        other = self.other(name) if row else None
        its = other.unit(row["other_layer"], row["other_unit"]) if other and row else None
        if other is None or its is None:
            return None
        if picture.kind == "beside":
            return other.queries, Picture(its.layer, its.unit, "crop", (picture.marks[1],))
        return (other.queries, its.picture) if its.picture else None

    def names(self) -> list[str]:
        """The tables of comparisons that there are."""
        return sorted(path.stem for path in (self._queries.run.path / "matches").glob("*.parquet"))

    def other(self, name: str) -> Other | None:
        """The run that a table of that name is of, where it is at hand."""
        about = compared_with(self._queries.run.record).get(name, {})
        return self._elsewhere.at(about.get("other"), about.get("other_fingerprint"), name)

    def most(self, name: str) -> int:
        """How many matches of a unit a table of that name has at most."""
        most = compared_with(self._queries.run.record).get(name, {}).get("most")
        return most if isinstance(most, int) else 1

    def _rows(self, name: str, layer: str, unit: int) -> list[dict[str, Any]]:
        rows = self._queries.reading.rows(self._queries.run.path / "matches" / f"{name}.parquet", _COLUMNS, unit)
        found = [
            row | {"unit": unit} for row in (rows.to_pylist() if rows is not None else ()) if row["layer"] == layer
        ]
        return sorted(found, key=lambda row: row["rank"])
