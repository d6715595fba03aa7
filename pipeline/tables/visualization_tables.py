"""Where visualizations are kept: a file per layer and preset, and the columns of the units table that show one each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.storage.files import table_file
from pipeline.storage.parquet import completed, image_column, parquet_file, read_rows, write_table
from pipeline.storage.seals import is_whole
from schemas.units import UNITS
from schemas.visualizations import VISUALIZATIONS

DRAWN = pa.schema(
    [
        ("unit", pa.int32()),
        ("facet", pa.int32()),
        ("picture", pa.binary()),
        ("activation", pa.float32()),
        ("rank", pa.int32()),
        ("seed", pa.int64()),
        ("attempts", pa.int32()),
        ("exemplars", pa.list_(pa.int32())),
        ("silhouette", pa.float64()),
    ]
)
"""What a drawing under way keeps of a picture."""
_SHOWN = {
    "visualization": "visualization", "visualization_activation": "activation", "visualization_ratio": "ratio",
    "visualization_rank": "rank", "visualization_preset": "preset", "visualization_seed": "seed",
    "visualization_attempts": "attempts",
}  # fmt: skip
"""Columns of units/ and where they come from."""
_MARKS = ("preset", "seed", "activation")


class LayerPictures:
    """The visualizations of one layer by one preset, in the tables of `run`."""

    def __init__(self, run: Path, layer: str, preset: str) -> None:
        self.layer, self.preset = layer, preset
        self.path = table_file(run, "visualizations", f"{layer}-{preset}")
        self.units_path = table_file(run, "units", layer)

    def drawn(self, recipe: str) -> set[int]:
        """The units that have pictures by `recipe`."""
        rows = self._rows(["unit", "recipe"])
        return set(rows.filter(pc.equal(rows["recipe"], recipe))["unit"].to_pylist())

    def shown(self, units: Collection[int]) -> bool:
        """Whether the units table shows the pictures of `units`, all of which are drawn."""
        columns = [f"visualization_{mark}" for mark in _MARKS]
        with parquet_file(self.units_path) as file:
            if not set(_SHOWN) <= set(file.schema_arrow.names):
                return False  # a version before
            there = _by_unit(file.read(["unit", *columns]), columns)
        best = self._best(["unit", *_MARKS])
        here = _by_unit(best, _MARKS)
        return all(there[unit] == here[unit] for unit in units)

    def add(self, drawn: pa.Table, recipe: str) -> None:
        """Writes rows of `DRAWN`, in place of any of the same units; those of other units stay."""
        its_units = read_rows(self.units_path, ["activation_max"])["activation_max"].to_pylist()
        unit, activation = (drawn[name].to_pylist() for name in ("unit", "activation"))
        columns = {name: drawn[name] for name in drawn.column_names if name != "picture"} | {
            "layer": pa.array([self.layer] * len(drawn), pa.string()),
            "preset": pa.array([self.preset] * len(drawn), pa.string()),
            "visualization": image_column(drawn["picture"].combine_chunks()),
            "ratio": pa.array(
                [_ratio(value, its_units[number]) for number, value in zip(unit, activation, strict=True)],
                pa.float64(),
            ),
            "recipe": pa.array([recipe] * len(drawn), pa.string()),
        }
        table = pa.table([columns[name] for name in VISUALIZATIONS.names], schema=VISUALIZATIONS)
        before = completed(self._rows(), VISUALIZATIONS)
        kept = before.filter(pc.invert(pc.is_in(before["unit"], drawn["unit"].combine_chunks())))
        rows = pa.concat_tables([kept, table]).sort_by([("unit", "ascending"), ("facet", "ascending")])
        write_table(self.path, VISUALIZATIONS, [rows])

    def show(self, units: Collection[int]) -> None:
        """Has the units table show the pictures of `units`, of several facets the one that drives the unit hardest."""
        table = completed(read_rows(self.units_path), UNITS)
        wanted = set(units)
        best = {row["unit"]: row for row in self._best().to_pylist() if row["unit"] in wanted}
        columns = {name: table[name] for name in UNITS.names}
        for name, source in _SHOWN.items():
            values = table[name].to_pylist()
            for unit, row in best.items():
                values[unit] = row[source]
            columns[name] = pa.array(values, UNITS.field(name).type)
        of_before = columns["interpretability_visualization"].to_pylist()  # a new picture has no score yet
        scores = [None if unit in best else score for unit, score in enumerate(of_before)]
        columns["interpretability_visualization"] = pa.array(scores, pa.float64())
        write_table(self.units_path, UNITS, [pa.table(columns, schema=UNITS)])

    def count(self) -> Counter[str]:
        """How many pictures, of how many units; how many have a ratio, and one of at least 1; a rank, and rank 0."""
        rows = self._rows(["unit", "activation", "ratio", "rank"])
        ratio, rank = (rows[name].to_numpy(zero_copy_only=False) for name in ("ratio", "rank"))
        return Counter(
            pictures=len(rows),
            units=len(pc.unique(rows["unit"])),
            never_fired=int((~(rows["activation"].to_numpy() > 0)).sum()),
            with_ratio=len(rows) - rows["ratio"].null_count,
            reached=int((ratio >= 1).sum()),
            ranked=len(rows) - rows["rank"].null_count,
            first=int((rank == 0).sum()),
        )

    def _best(self, columns: list[str] | None = None) -> pa.Table:
        """A row for each unit: of its facets the one with the largest activation, the first of equal ones."""
        rows = self._rows(columns)
        activation = np.nan_to_num(rows["activation"].to_numpy(), nan=-np.inf)
        order = np.lexsort((np.arange(len(rows)), -activation, rows["unit"].to_numpy()))
        unit = rows["unit"].to_numpy()[order]
        return rows.take(pa.array(order[np.flatnonzero(np.diff(unit, prepend=-1))]))

    def _rows(self, columns: list[str] | None = None) -> pa.Table:
        """All rows of the file; none where there is none that is whole."""
        if not is_whole(self.path):
            return VISUALIZATIONS.empty_table().select(columns or VISUALIZATIONS.names)
        return read_rows(self.path, columns)


def counts(run: Path, layers: Iterable[str], preset: str) -> dict[str, int]:
    """`LayerPictures.count` of all `layers` together."""
    total = Counter[str]()
    for layer in layers:
        total.update(LayerPictures(run, layer, preset).count())
    return dict(total)


def _ratio(activation: float, most: float | None) -> float | None:
    return activation / most if most is not None and most > 0 else None


def _by_unit(rows: pa.Table, columns: Sequence[str]) -> dict[int, tuple[object, ...]]:
    values = (map(str, rows[name].to_pylist()) for name in columns)  # as text a NaN equals itself
    return dict(zip(rows["unit"].to_pylist(), zip(*values, strict=True), strict=True))
