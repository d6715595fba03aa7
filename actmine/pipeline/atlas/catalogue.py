"""The units of a layer as columns: ordered, narrowed and counted all at once, records only of those that are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actmine.pipeline import naming
from actmine.pipeline.atlas.links import Picture
from actmine.pipeline.atlas.records import Unit
from actmine.pipeline.choose import parse_spans
from actmine.pipeline.errors import UserError
from actmine.pipeline.readings.statistics_options import BOTTOM, TOP

_FIELDS = {
    "images": "images_seen", "maximum": "activation_max", "minimum": "activation_min", "mean": "activation_mean",
    "deviation": "activation_std", "rate": "firing_rate", "density": "density", "name": "name",
    "understood": "interpretability_exemplars", "understood_drawn": "interpretability_visualization",
    "reached": "visualization_activation", "ratio": "visualization_ratio", "rank": "visualization_rank",
    "preset": "visualization_preset", "attempts": "visualization_attempts",
}  # fmt: skip
"""Fields of `Unit` that are a column of units/ each."""
_EVIDENCE = {
    "purity": "label_purity", "chance": "label_purity_chance", "purity_q": "label_purity_q",
    "selectivity": "class_selectivity", "correlation": "best_label_correlation", "correlation_q": "best_label_q",
    "auc": "best_label_auc", "auc_low": "best_label_auc_low", "auc_high": "best_label_auc_high",
    "node_correlation": "best_node_correlation", "node_q": "best_node_q", "node_auc": "best_node_auc",
    "node_auc_low": "best_node_auc_low", "node_auc_high": "best_node_auc_high", "node_path": "best_node_path",
}  # fmt: skip
"""And those that belong to a statement about a label: None where it does not hold."""
COLUMNS = ("unit", "nan_count", *naming.COLUMNS, *_FIELDS.values(), "visualization.path")
"""What is read of units/ of one unit."""
OF_TILES = (
    "unit", *naming.COLUMNS, "activation_max", "firing_rate", "density", "name", "visualization_ratio",
    "interpretability_exemplars", "visualization.path",
)  # fmt: skip
"""What is read of all units of a layer: what a tile shows, and what tiles are sorted by."""


class Catalogue:
    """The units of `layer` by `OF_TILES` of units/, a column each; `end` is the band that says what a unit is."""

    def __init__(self, layer: str, rows: pa.Table, end: str = TOP) -> None:
        self.layer, self._end = layer, end
        self._rows = rows.combine_chunks()
        self.unit = self._rows["unit"].to_numpy().astype(np.int64)

    def __len__(self) -> int:
        return len(self.unit)

    @property
    def nbytes(self) -> int:
        """What it takes of memory (bytes)."""
        return int(self._rows.nbytes)

    def values(self, column: str) -> np.ndarray:
        """A column of numbers, float64; NaN where there is none, and where it says something of no label."""
        values = naming.numbers(self._rows, column)
        kind = naming.STATEMENT_OF.get(column)
        return values if kind is None else np.where(self._held[kind], values, np.nan)

    def or_nothing(self, column: str) -> np.ndarray:
        """As `values`, with 0 where there is none."""
        return np.nan_to_num(self.values(column), nan=0.0)

    def knows(self, column: str) -> bool:
        """Whether any unit has a value in a column."""
        return column in self._rows.column_names and not np.isnan(self.values(column)).all()

    @cached_property
    def drawn(self) -> np.ndarray:
        """Of which units there is a visualization, bool."""
        if "visualization" not in self._rows.column_names:
            return np.zeros(len(self), bool)
        return self._rows["visualization"].is_valid().to_numpy(zero_copy_only=False)

    @cached_property
    def labels(self) -> tuple[list[str], np.ndarray]:
        """The labels of units in words, each once, and for each unit which it is; -1 for none."""
        words = {kind: naming.words(self._rows, kind) for kind in naming.STATEMENTS}
        shown = (pc.if_else(pa.array(self._held[kind]), said, None) for kind, said in words.items())
        coded = pc.coalesce(*shown).dictionary_encode()
        codes = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        return coded.dictionary.to_pylist(), codes

    @cached_property
    def _held(self) -> dict[str, np.ndarray]:
        """Of which units which statement holds, bool."""
        return {kind: naming.held(self._rows, kind) for kind in naming.STATEMENTS}

    @cached_property
    def named(self) -> dict[str, list[tuple[float, float, int]]]:
        """All labels that units have and nodes above: q-value, negative score and row of their units, best first."""
        found: dict[str, dict[int, tuple[float, float, int]]] = {}
        for kind, each in naming.STATEMENTS.items():
            rows = np.flatnonzero(self._held[kind])
            said = naming.words(self._rows, kind).take(pa.array(rows)).to_pylist()
            paths = [None] * len(rows)
            if kind == naming.NODE and "best_node_path" in self._rows.column_names:
                paths = self._rows["best_node_path"].take(pa.array(rows)).to_pylist()
            q, score = (naming.numbers(self._rows, name)[rows].tolist() for name in (each.q, each.score))
            for at, row in enumerate(rows.tolist()):
                evidence = q[at], -score[at], row
                for name in {said[at], *naming.ancestors(paths[at])}:
                    its = found.setdefault(name, {})
                    its[row] = min(its.get(row, evidence), evidence)
        return {name: sorted(its.values()) for name, its in found.items()}

    def order(self, column: str, reverse: bool = False) -> np.ndarray:
        """Rows in the order of a column: numbers ascend, all else descends, unless reversed; the unknown come last."""
        values = self.unit.astype(np.float64) if column == "unit" else self.values(column)
        turned = (column == "unit") == reverse
        keys = np.nan_to_num(-values if turned else values, nan=0.0)
        return np.lexsort((self.unit, keys, np.isnan(values)))

    def matching(self, text: str) -> np.ndarray:
        """Rows, bool, with a label that holds `text` or that it lists (`3,7,10-20`); all if empty."""
        text = text.strip()
        if not text:
            return np.ones(len(self), bool)
        try:
            spans = parse_spans(text)
        except UserError:
            spans = []
        found: np.ndarray = np.zeros(len(self), bool)
        for first, last in spans:
            found |= (first <= self.unit) & (self.unit <= last)
        for name, its in self.named.items():
            if naming.is_in(text, name):
                found[[row for _, _, row in its]] = True
        return found | np.array([name is not None and naming.is_in(text, name) for name in self.names], bool)

    @cached_property
    def names(self) -> list[str | None]:
        """What a dictionary calls its directions; None where it does not."""
        if "name" not in self._rows.column_names:
            return [None] * len(self)
        found: list[str | None] = self._rows["name"].to_pylist()
        return found

    def standing_for(self, most: int) -> list[Unit]:
        """The few units that stand for a layer: those that fire, the purest first, each label once if it can be."""
        firing = np.flatnonzero(self.or_nothing("activation_max") > 0)
        purity, maximum = (self.or_nothing(name)[firing] for name in ("label_purity", "activation_max"))
        left = firing[np.lexsort((self.unit[firing], -maximum, -purity))]
        chosen: list[np.ndarray] = []
        while len(left) and sum(map(len, chosen)) < most:
            first = np.sort(np.unique(self.labels[1][left], return_index=True)[1])
            chosen.append(left[first])
            left = np.delete(left, first)
        return self.records(np.concatenate(chosen)[:most]) if chosen else []

    def records(self, rows: Sequence[int] | np.ndarray) -> list[Unit]:
        """Some rows as records, of which nothing is known but `OF_TILES`."""
        taken = self._rows.take(pa.array(rows, pa.int64()))
        return [unit_of(self.layer, row, self._end) for row in taken.to_pylist()]

    @cached_property
    def all(self) -> list[Unit]:
        """Every unit as a record, for layers of which a page shows all."""
        return self.records(range(len(self)))

    def place(self, unit: int) -> int | None:
        """The row of a unit; None where the layer has no such number."""
        found = np.flatnonzero(self.unit == unit)
        return int(found[0]) if len(found) else None


def unit_of(layer: str, row: Mapping[str, Any], end: str = TOP) -> Unit:
    """A row of units/ as a record; its picture is the one drawn, or the strongest crop of a unit that fires."""
    number, drawn = row["unit"], row.get("visualization") is not None
    picture = Picture(layer, number, "visualization") if drawn else None
    if not drawn and ((row.get("activation_max") or 0) > 0 or end == BOTTOM):
        picture = Picture(layer, number, "crop", ("0",))
    labels = naming.labels_of(row)
    return Unit(
        layer, number, nan=row.get("nan_count") or 0, drawn=drawn, picture=picture,
        label=next(iter(labels.values()), None), shared=labels.get(naming.SHARED), node=labels.get(naming.NODE),
        best_label=labels.get(naming.TOLD), **{name: row.get(column) for name, column in _FIELDS.items()},
        **{name: row.get(column) for name, column in _EVIDENCE.items() if naming.STATEMENT_OF[column] in labels},
    )  # fmt: skip
