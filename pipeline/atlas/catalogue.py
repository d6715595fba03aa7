"""The units of a layer as columns: ordered, narrowed and counted all at once, records only of those that are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.atlas.images import named
from pipeline.atlas.links import Picture
from pipeline.atlas.records import Unit
from pipeline.choose import parse_units
from pipeline.errors import UserError
from pipeline.readings.keep import BOTTOM, TOP

_FIELDS = {
    "images": "images_seen", "maximum": "activation_max", "minimum": "activation_min", "mean": "activation_mean",
    "deviation": "activation_std", "rate": "firing_rate", "purity": "label_purity", "chance": "label_purity_chance",
    "selectivity": "class_selectivity", "auc": "best_label_auc", "understood": "interpretability_exemplars",
    "understood_drawn": "interpretability_visualization", "reached": "visualization_activation",
    "ratio": "visualization_ratio", "rank": "visualization_rank", "preset": "visualization_preset",
    "attempts": "visualization_attempts",
}  # fmt: skip
"""Fields of `Unit` that are a column of units/ each."""
COLUMNS = (
    "unit", "nan_count", "top_label", "top_label_name", "best_label", "best_label_name", *_FIELDS.values(),
    "visualization.path",
)  # fmt: skip
"""What is read of units/ of one unit."""
OF_TILES = (
    "unit", "top_label", "top_label_name", "activation_max", "firing_rate", "label_purity", "visualization_ratio",
    "class_selectivity", "best_label_auc", "interpretability_exemplars", "visualization.path",
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
        """A column of numbers, float64; NaN where there is none."""
        if column not in self._rows.column_names:
            return np.full(len(self), np.nan)
        values: np.ndarray = self._rows[column].cast(pa.float64()).to_numpy(zero_copy_only=False)
        return values

    def or_nothing(self, column: str) -> np.ndarray:
        """As `values`, with 0 where there is none."""
        return np.nan_to_num(self.values(column), nan=0.0)

    def knows(self, column: str) -> bool:
        """Whether any unit has a value in a column."""
        return column in self._rows.column_names and self._rows[column].null_count < len(self)

    @cached_property
    def drawn(self) -> np.ndarray:
        """Of which units there is a visualization, bool."""
        if "visualization" not in self._rows.column_names:
            return np.zeros(len(self), bool)
        return self._rows["visualization"].is_valid().to_numpy(zero_copy_only=False)

    @cached_property
    def labels(self) -> tuple[list[str], np.ndarray]:
        """The words of the commonest labels of exemplars, each once, and for each unit which it is; -1 for none."""
        lacking = pa.nulls(len(self), pa.string())
        names = self._rows["top_label_name"] if "top_label_name" in self._rows.column_names else lacking
        numbers = self._rows["top_label"] if "top_label" in self._rows.column_names else lacking
        said = pc.if_else(pc.equal(names, ""), None, names.cast(pa.string()))
        numbered = pc.binary_join_element_wise("label", numbers.cast(pa.string()), " ")
        words = pc.coalesce(said, numbered)
        coded = (words.combine_chunks() if isinstance(words, pa.ChunkedArray) else words).dictionary_encode()
        codes = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        return coded.dictionary.to_pylist(), codes

    def order(self, column: str, reverse: bool = False) -> np.ndarray:
        """Rows in the order of a column: numbers ascend, all else descends, unless reversed; the unknown come last."""
        values = self.unit.astype(np.float64) if column == "unit" else self.values(column)
        turned = (column == "unit") == reverse
        keys = np.nan_to_num(-values if turned else values, nan=0.0)
        return np.lexsort((self.unit, keys, np.isnan(values)))

    def matching(self, text: str) -> np.ndarray:
        """Rows, bool, whose label holds `text`, case aside, or whose number it lists (`3,7,10-20`); all if empty."""
        text = text.strip()
        if not text:
            return np.ones(len(self), bool)
        try:
            numbers = parse_units(text)
        except UserError:
            numbers = []
        words, codes = self.labels
        wanted = text.casefold()
        named_so = np.array([*(wanted in word.casefold() for word in words), False])
        return np.isin(self.unit, numbers) | named_so[codes]

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
    return Unit(
        layer, number, nan=row.get("nan_count") or 0, drawn=drawn, picture=picture,
        label=named({"label": row.get("top_label"), "label_name": row.get("top_label_name")}),
        best_label=named({"label": row.get("best_label"), "label_name": row.get("best_label_name")}),
        **{name: row.get(column) for name, column in _FIELDS.items()},
    )  # fmt: skip
