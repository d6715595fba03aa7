"""The rows of the units table: statistics, and what label a unit's exemplars share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeline.exemplars import Rows
from pipeline.layers import Layer
from schemas.units import UNITS


def unit_table(
    layer: Layer,
    summary: dict[str, np.ndarray],
    rows: Rows,
    part: slice,
    first: int,
    labels: np.ndarray,
    names: Sequence[str | None],
) -> pa.Table:
    """One layer's units, without visualizations.

    `summary` holds the layer's part of `Statistics.summary`; `part` its exemplar rows, whose units count from
    `first`. `labels` (-1 for none) and `names` belong to the images that `rows.image` numbers.
    """
    units = layer.units
    maximum = np.full(units, np.nan, np.float32)
    best = np.flatnonzero(rows.rank[part] == 0)
    maximum[rows.unit[part][best] - first] = rows.activation[part][best]
    label, name, purity = _shared_labels(rows, part, first, units, labels, names)
    columns: dict[str, pa.Array] = {
        "layer": pa.array([layer.name] * units),
        "unit": pa.array(range(units), pa.int32()),
        "images_seen": pa.array(summary["images_seen"]),
        "nan_count": pa.array(summary["nan_count"]),
        "activation_max": pa.array(maximum, from_pandas=True),
        **{
            key: pa.array(summary[key], from_pandas=True)
            for key in ("activation_mean", "activation_std", "firing_rate")
        },
        "top_label": label,
        "top_label_name": name,
        "label_purity": purity,
    }
    missing = {field.name: pa.nulls(units, field.type) for field in UNITS if field.name not in columns}
    return pa.table([columns.get(name, missing.get(name)) for name in UNITS.names], schema=UNITS)


def _shared_labels(
    rows: Rows, part: slice, first: int, units: int, labels: np.ndarray, names: Sequence[str | None]
) -> tuple[pa.Array, pa.Array, pa.Array]:
    label: list[int | None] = [None] * units
    name: list[str | None] = [None] * units
    purity: list[float | None] = [None] * units
    fires = rows.activation[part] > 0
    unit = rows.unit[part][fires] - first
    image = rows.image[part][fires]
    bounds = np.searchsorted(unit, np.arange(units + 1))
    for number in range(units):
        images = image[bounds[number] : bounds[number + 1]]
        of_unit = labels[images]
        known = of_unit[of_unit >= 0]
        if len(known):
            values, counts = np.unique(known, return_counts=True)
            commonest = int(values[counts.argmax()])
            label[number] = commonest
            name[number] = names[int(images[np.argmax(of_unit == commonest)])]
            purity[number] = float(counts.max() / len(known))
    return pa.array(label, pa.int32()), pa.array(name, pa.string()), pa.array(purity, pa.float64())
