"""A stage that fills columns of `exemplars/` for the first exemplars of some units: calls add up, none takes away."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actmine.pipeline import record
from actmine.pipeline.choose import parse_units, spans
from actmine.pipeline.engines.engine import Engine
from actmine.pipeline.exemplars.exemplar_parts import first_exemplars
from actmine.pipeline.network.layers import Layer
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.progress import Progress
from actmine.pipeline.stages.exemplar_stage import Done, ExemplarStage, P, recorded
from actmine.pipeline.storage.added_columns import add_columns, filled, has_columns
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.fingerprint import fingerprint
from actmine.schemas.exemplars import EXEMPLARS

F = TypeVar("F")
Units = Mapping[str, Sequence[int]]
"""Units of layers by name."""


class ColumnStage(ExemplarStage[P, F]):
    """Measures the first `most` exemplars of some `units` of each layer by name (None: all) that were not yet measured.

    The rows of `kept` begin with `layer`, a number, and `row`; the columns to fill follow. What is recorded `by_layer`:
    of how many first exemplars which units were measured (`{"9": "0-63"}`), and how many rows have a value.
    """

    columns: ClassVar[tuple[str, ...]]
    """The columns to fill."""
    needs: ClassVar[Sequence[str]]
    """Columns of exemplars that parts are made of."""
    adds = True

    def __init__(
        self, place: tuple[str, ...], run: Path, subject: Subject, engine: Engine, progress: Progress,
        known: Mapping[str, Any], units: Units | None, most: int,
    ) -> None:  # fmt: skip
        super().__init__(place, run, subject, engine, progress, known)
        # without the kind of device: what another one measured stays
        self.fingerprint = fingerprint({**known, "mined": self.known["mined"]})
        self.subject, self.most, self.described = subject, most, dict(known)
        self.units = {
            layer.name: list(range(layer.units) if units is None else units[layer.name]) for layer in self.layers
        }  # fmt: skip

    @abstractmethod
    def concerned(self, layer: Layer) -> bool:
        """Whether there is anything to measure in a layer."""

    @property
    def asked(self) -> dict[str, Any]:
        """Units, how many exemplars of each, and what was measured before."""
        units = {name: spans(its) for name, its in self.units.items()}
        return {"units": units, "most": self.most, "before": self.before}

    def in_place(self, about: dict[str, Any]) -> bool:
        """Whether every unit has been measured that is asked for."""
        return not any(
            self.concerned(layer) and (self._measured(about, layer)[self.units[layer.name]] < self.most).any()
            for layer in self.layers
        )

    @cached_property
    def todo(self) -> dict[int, pa.Table]:
        """The exemplars to measure of each layer that lacks some, by its number: `row`, `rank` and what it `needs`."""
        found = {}
        for number, layer in enumerate(self.layers):
            if self.concerned(layer):
                begin = np.full(layer.units, self.most)
                its = self.units[layer.name]
                begin[its] = self._measured(self.before, layer)[its]
                rows = first_exemplars(self._table(layer), self.most, self.needs)
                rows = rows.filter(pa.array(rows["rank"].to_numpy() >= begin[rows["unit"].to_numpy()]))
                if len(rows):
                    found[number] = rows
        return found

    def groups(self) -> Iterator[dict[int, pa.Table]]:
        """What is to do, by layers that share the way through the network: all of a graph, otherwise one by one."""
        if self.subject.traced.graph is not None:
            yield self.todo
        else:
            yield from ({number: rows} for number, rows in self.todo.items())

    def total(self) -> int:
        """How many exemplars lack something."""
        return sum(len(rows) for rows in self.todo.values())

    def write(self, done: Done) -> dict[str, Any]:
        """Fills the columns. Where nothing is known of what they hold, that is taken away."""
        rows, anew = done(), not self.before
        by_layer = dict(self.before.get("by_layer", {}))
        numbers = {layer.name: number for number, layer in enumerate(self.layers)}
        for name in record.read_record(self.run)["layers"]:
            number, table = numbers.get(name), table_file(self.run, "exemplars", name)
            its = rows.filter(pc.equal(rows["layer"], -1 if number is None else number))
            count = 0
            if number in self.todo or (anew and filled(table, self.columns[0])) or (
                number is not None and not has_columns(table, *self.columns)
            ):  # fmt: skip
                count = add_columns(table, EXEMPLARS, its.select(["row", *self.columns]), anew)
            if number is not None and self.concerned(self.layers[number]):
                by_layer[name] = {
                    "first": self._now(self.layers[number]),
                    "found": count if number in self.todo else filled(table, self.columns[0]),
                }
        return {
            **self.described, "most": self.most, "layers": len(by_layer),
            "measured": self.before.get("measured", 0) + self.total(),
            "found": sum(its["found"] for its in by_layer.values()), "by_layer": by_layer,
        }  # fmt: skip

    @cached_property
    def before(self) -> dict[str, Any]:
        """What is recorded of earlier calls; nothing where it is of no use."""
        about = recorded(record.read_record(self.run), self.place)
        return about if about.get("fingerprint") == self.fingerprint else {}

    def _measured(self, about: Mapping[str, Any], layer: Layer) -> np.ndarray:
        """How many first exemplars of each unit were measured, `[U]`, by what is recorded.

        Where nothing locks a run, another command may have mined its tables anew.
        """
        first = np.zeros(layer.units, np.int64)
        known = about.get("by_layer", {}).get(layer.name)
        if known is not None and filled(self._table(layer), self.columns[0]) >= known["found"]:
            for most in sorted(known["first"], key=int):
                first[parse_units(known["first"][most])] = int(most)
        return first

    def _now(self, layer: Layer) -> dict[str, str]:
        """What is to be recorded of a layer."""
        first, its = self._measured(self.before, layer), self.units[layer.name]
        first[its] = np.maximum(first[its], self.most)
        return {str(most): spans(np.flatnonzero(first == most).tolist()) for most in sorted(set(first.tolist()) - {0})}

    def _table(self, layer: Layer) -> Path:
        return table_file(self.run, "exemplars", layer.name)
