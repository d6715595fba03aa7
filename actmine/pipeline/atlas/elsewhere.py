"""Other runs that a run was compared with, opened when they are first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from actmine.pipeline.atlas.links import Picture, segments
from actmine.pipeline.atlas.queries import Queries
from actmine.pipeline.atlas.records import Unit
from actmine.pipeline.errors import UserError
from actmine.pipeline.run import Run, open_run

Behind = Callable[[Picture], "tuple[Queries, Picture] | None"]
"""Gives the other run and its picture that a picture of `links.OF_OTHERS` stands for; None where there is none."""


class Other:
    """Another run at hand; what is damaged in it is not there, as it is not the run that is looked at."""

    def __init__(self, queries: Queries) -> None:
        self.queries = queries
        self.place = str(queries.run.path)
        self._segments: dict[str, str] | None = None

    @property
    def units(self) -> int:
        """How many units it has."""
        return sum(layer.units for layer in self.queries.layers.values())

    def unit(self, layer: str, unit: int) -> Unit | None:
        """One of its units as a tile shows it."""
        try:
            return self.queries.tile(layer, unit) if layer in self.queries.layers else None
        except UserError:
            return None

    def segment(self, layer: str) -> str:
        """The part of an address that stands for one of its layers; empty for what is none."""
        if self._segments is None:
            self._segments = segments(self.queries.layers)
        return self._segments.get(layer, "")

    def crisp(self, unit: Unit) -> bool:
        """Whether the pixels of its tile are to be seen."""
        return self.queries.crisp(unit)


class Elsewhere:
    """The other runs of a run.

    One is at hand if it is beside the run, or where it was compared, and was mined with the same settings as then.
    Where someone else's run says that it was compared with others is not looked at.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], Other | None] = {}

    def at(self, place: Any, fingerprint: Any, name: str = "") -> Other | None:
        """The run that was at a `place` then, with that `fingerprint`; None where it is not at hand."""
        if not isinstance(place, str) or not isinstance(fingerprint, str):
            return None
        if "published" in self._run.record:
            return None  # whatever lies beside a published run is no part of it
        with self._lock:
            if (place, fingerprint) not in self._known:
                self._known[place, fingerprint] = self._opened(place, fingerprint, Path(place).name or name)
            return self._known[place, fingerprint]

    def _opened(self, place: str, fingerprint: str, folder: str) -> Other | None:
        places: list[str | Path] = [self._run.path.parent / folder, *([place] if self._run.trusted else [])]
        for tried in places:
            try:
                other = open_run(tried)
                if other.record.get("fingerprint") == fingerprint:
                    found = Other(Queries(other))
                    assert found.queries.layers is not None
                    return found
            except UserError:
                continue
        return None


def compared_with(record: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What a record says of each run that its own was compared with, by the name of the table."""
    found = record.get("matches", {})
    return {name: about for name, about in sorted(found.items()) if isinstance(about, Mapping)}
