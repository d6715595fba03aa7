"""Where interpretability scores are kept: columns of the units table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa

from actmine.pipeline.storage.added_columns import add_columns
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import completed, parquet_file
from actmine.schemas.units import INTERPRETABILITY, UNITS

BY_EXEMPLARS, BY_PICTURE, TRIALS, SIMILARITY = INTERPRETABILITY


def unit_columns(run: Path, layer: str, names: Sequence[str]) -> dict[str, list[Any]]:
    """Columns of a layer's units, in their order; null where a version before has not got them."""
    path = table_file(run, "units", layer)
    with parquet_file(path) as file:
        known = [name for name in names if name in file.schema_arrow.names]
        rows = file.read(["unit", *known])
    schema = pa.schema([UNITS.field(name) for name in names])
    table = completed(rows, schema)
    return {name: table[name].to_pylist() for name in names}


def update_scores(run: Path, layer: str, scores: Mapping[int, Mapping[str, Any]]) -> None:
    """Writes the scores of some units of a layer; those of others stay."""
    columns = unit_columns(run, layer, INTERPRETABILITY)
    for unit, row in scores.items():
        for name, values in columns.items():
            values[unit] = row.get(name)
    path = table_file(run, "units", layer)
    found = {name: pa.array(values, UNITS.field(name).type) for name, values in columns.items()}
    add_columns(path, UNITS, pa.table({"row": pa.array(range(len(columns[TRIALS])), pa.int64()), **found}))


def clear_others(run: Path, layers: Iterable[str], similarity: str) -> None:
    """Takes away what another similarity has found."""
    for layer in layers:
        by = unit_columns(run, layer, [SIMILARITY])[SIMILARITY]
        others: dict[int, dict[str, Any]] = {unit: {} for unit, word in enumerate(by) if word not in (None, similarity)}
        if others:
            update_scores(run, layer, others)


def medians(run: Path, layer: str) -> dict[str, Any]:
    """Of a layer's scored units how many there are, and their median scores; None where there are none."""
    columns = unit_columns(run, layer, [BY_EXEMPLARS, BY_PICTURE])
    known = {name: [value for value in values if value is not None] for name, values in columns.items()}
    return {
        "units": len(known[BY_EXEMPLARS]),
        "exemplars": median(known[BY_EXEMPLARS]) if known[BY_EXEMPLARS] else None,
        "visualization": median(known[BY_PICTURE]) if known[BY_PICTURE] else None,
    }
