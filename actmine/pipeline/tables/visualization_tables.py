"""Where visualizations are kept: a file per layer and preset, and the columns of the units table that show one each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import completed, image_column, parquet_file, read_rows, write_table
from actmine.pipeline.storage.seals import is_whole
from actmine.pipeline.words import PRESETS
from actmine.schemas.units import UNITS
from actmine.schemas.visualizations import VISUALIZATIONS

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
SHOWN = {
    "visualization": "visualization", "visualization_activation": "activation", "visualization_ratio": "ratio",
    "visualization_rank": "rank", "visualization_preset": "preset", "visualization_seed": "seed",
    "visualization_attempts": "attempts",
}  # fmt: skip
"""Columns of units/ and where they come from."""
_MARKS = ("preset", "seed", "activation")


class LayerPictures:
    """The visualizations of one layer by one preset, in the tables of `run`, beside those by all its `presets`."""

    def __init__(self, run: Path, layer: str, preset: str, presets: Iterable[str] = ()) -> None:
        self.layer, self.preset = layer, preset
        self._files = {name: table_file(run, "visualizations", f"{layer}-{name}") for name in {preset, *presets}}
        self.path = self._files[preset]
        self.units_path = table_file(run, "units", layer)

    def drawn(self, recipe: str) -> set[int]:
        """The units that have pictures by `recipe`."""
        rows = self._rows(["unit", "recipe"])
        return set(rows.filter(pc.equal(rows["recipe"], recipe))["unit"].to_pylist())

    def shown(self, units: Collection[int]) -> bool:
        """Whether the units table shows the best pictures of `units`, all of which are drawn."""
        columns = [f"visualization_{mark}" for mark in _MARKS]
        with parquet_file(self.units_path) as file:
            if not set(SHOWN) <= set(file.schema_arrow.names):
                return False  # a version before
            there = _by_unit(file.read(["unit", *columns]), columns)
        here = _by_unit(self.best(units, _MARKS), _MARKS)
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
        """Has the units table show the best picture of each of `units`, of all presets and facets.

        It is the one that suits fewer other units of the layer better, then the one that drives the unit harder. A
        picture that was not shown before has no interpretability score yet.
        """
        table = completed(read_rows(self.units_path), UNITS)
        marks = [f"visualization_{mark}" for mark in _MARKS]
        before = _by_unit(table.select(["unit", *marks]), marks)
        best = {row["unit"]: row for row in self.best(units, [*SHOWN.values()]).to_pylist()}
        anew = {unit for unit, row in best.items() if before[unit] != tuple(str(row[mark]) for mark in _MARKS)}
        columns = {name: table[name] for name in UNITS.names}
        for name, source in SHOWN.items():
            values = table[name].to_pylist()
            for unit, row in best.items():
                values[unit] = row[source]
            columns[name] = pa.array(values, UNITS.field(name).type)
        of_before = columns["interpretability_visualization"].to_pylist()
        scores = [None if unit in anew else score for unit, score in enumerate(of_before)]
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

    def best(self, units: Collection[int], columns: Sequence[str]) -> pa.Table:
        """Unit and `columns` of the best picture of each of `units`: by rank, then ratio, then activation.

        Of equal ones the first by the name of its preset, then by its facet. Pictures are read of the best alone.
        """
        judged = [self._rows(["unit", "rank", "ratio", "activation"], name) for name in sorted(self._files)]
        rows = pa.concat_tables(judged)
        place = np.repeat(np.arange(len(judged)), [len(each) for each in judged])
        unit, row = rows["unit"].to_numpy(), np.concatenate([np.arange(len(each)) for each in judged])
        rank = rows["rank"].fill_null(np.iinfo(np.int32).max).to_numpy()
        ratio, activation = (
            np.nan_to_num(rows[name].to_numpy(zero_copy_only=False).astype(np.float64), nan=-np.inf)
            for name in ("ratio", "activation")
        )
        order = np.lexsort((row, place, -activation, -ratio, rank, unit))
        best = order[np.flatnonzero(np.diff(unit[order], prepend=-1))]
        best = best[np.isin(unit[best], list(units))]
        names = list(dict.fromkeys(["unit", *columns]))
        found = [
            self._rows(names, name).take(pa.array(row[best[place[best] == number]]))
            for number, name in enumerate(sorted(self._files))
        ]
        return pa.concat_tables(found)

    def _rows(self, columns: list[str] | None = None, preset: str = "") -> pa.Table:
        """All rows of the file, or of that of another preset; none where there is none that is whole."""
        path = self._files[preset or self.preset]
        if not is_whole(path):
            return VISUALIZATIONS.empty_table().select(columns or VISUALIZATIONS.names)
        with parquet_file(path) as file:
            there = [name for name in columns or VISUALIZATIONS.names if name in file.schema_arrow.names]
        rows = read_rows(path, there)
        return rows if columns is None else completed(rows, VISUALIZATIONS).select(columns)


def presets_of(run: Path, layers: Iterable[str]) -> list[str]:
    """The presets by which any of some layers has pictures."""
    names = list(layers)
    return [
        preset for preset in PRESETS
        if any(is_whole(table_file(run, "visualizations", f"{layer}-{preset}")) for layer in names)
    ]  # fmt: skip


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
