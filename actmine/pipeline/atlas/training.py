"""What units were at checkpoints of training, and their pictures where the runs of those are at hand."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from actmine.pipeline.atlas.elsewhere import Elsewhere, Other
from actmine.pipeline.atlas.links import Picture
from actmine.pipeline.atlas.queries import Queries
from actmine.pipeline.atlas.records import Moment
from actmine.pipeline.storage.files import table_file
from actmine.schemas.chance import LEVEL
from actmine.schemas.checkpoints import CHECKPOINTS

_COLUMNS = tuple(CHECKPOINTS.names)


class Training:
    """What `compare --checkpoints` found for the units of a run."""

    def __init__(self, queries: Queries, elsewhere: Elsewhere) -> None:
        self._queries, self._elsewhere = queries, elsewhere
        about = queries.run.record.get("checkpoints")
        self.about: dict[str, Any] = about if isinstance(about, dict) else {}
        runs = self.about.get("runs")
        self._runs = [each for each in runs if isinstance(each, dict)] if isinstance(runs, list) else []

    @property
    def names(self) -> list[str]:
        """What the checkpoints are called, the oldest first; none where units were not followed."""
        return [str(each.get("name", "")) for each in self._runs]

    def other(self, checkpoint: int) -> Other | None:
        """The run of a checkpoint, where it is at hand."""
        if not 0 <= checkpoint < len(self._runs):
            return None
        its = self._runs[checkpoint]
        return self._elsewhere.at(its.get("place"), its.get("fingerprint"), str(its.get("name", "")))

    def of(self, layer: str, unit: int) -> tuple[Moment, ...]:
        """A unit at each checkpoint, the oldest first; none where it was not followed."""
        if not self._runs:
            return ()
        rows = self._queries.reading.rows(table_file(self._queries.run.path, "checkpoints", layer), _COLUMNS, unit)
        found = rows.to_pylist() if rows is not None else []
        return tuple(self._moment(row) for row in found if row["checkpoint"] < len(self._runs))

    def _moment(self, row: dict[str, Any]) -> Moment:
        other = self.other(row["checkpoint"])
        its = other.unit(row["layer"], row["unit"]) if other else None
        picture = Picture(row["layer"], row["unit"], "checkpoint", (str(row["checkpoint"]),))
        known = row["last_q_value"] is not None
        heir = row["heir_q_value"] is not None and row["heir_q_value"] < LEVEL
        return Moment(
            self.names[row["checkpoint"]], row["checkpoint"], row["varies"], row["last_similarity"], row["last_chance"],
            known and row["last_q_value"] < LEVEL, row["before_similarity"], row["born"], row["lost"],
            (row["heir_layer"], row["heir_unit"], row["heir_similarity"]) if heir else None,
            picture if its and its.picture else None, bool(other and its and other.crisp(its)),
            other.place if other else "", other.segment(row["layer"]) if other else "",
        )  # fmt: skip

    def behind(self, picture: Picture) -> tuple[Queries, Picture] | None:
        """The run of a checkpoint and its picture that a picture stands for; None where there is none."""
        if picture.kind != "checkpoint" or len(picture.marks) != 1 or not picture.marks[0].isdecimal():
            return None
        other = self.other(int(picture.marks[0][:9]))
        its = other.unit(picture.layer, picture.unit) if other else None
        return (other.queries, its.picture) if other and its and its.picture else None

    @cached_property
    def births(self) -> dict[str, np.ndarray]:
        """By layer, of each unit the first checkpoint `[U]` from which on it is as in the end; their number if none."""
        return {layer: self._first(layer) for layer in self.about.get("layers", ()) if layer in self._queries.layers}

    def _first(self, layer: str) -> np.ndarray:
        rows = self._queries.reading.rows(
            table_file(self._queries.run.path, "checkpoints", layer), ("unit", "checkpoint", "born"), keep=False
        )
        if rows is None or not len(rows):
            return np.empty(0, np.int64)
        count = len(self._runs)
        born = rows["born"].to_numpy(zero_copy_only=False).reshape(-1, count)
        return np.where(born.any(1), born.argmax(1), count)

    @cached_property
    def losses(self) -> list[dict[str, np.ndarray]]:
        """By checkpoint and layer the units `[N]` which vary there and like which no unit of the end is."""
        found: list[dict[str, np.ndarray]] = [{} for _ in self._runs]
        for layer in self.births:
            rows = self._queries.reading.rows(
                table_file(self._queries.run.path, "checkpoints", layer), ("unit", "checkpoint", "lost"), keep=False
            )
            if rows is None:
                continue
            unit, at, lost = (rows[name].to_numpy(zero_copy_only=False) for name in ("unit", "checkpoint", "lost"))
            for checkpoint, of_layers in enumerate(found):
                of_layers[layer] = unit[lost & (at == checkpoint)]
        return found
