"""The rows of the units table: statistics, beside what is known of labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from actmine.pipeline.network.layers import Layer
from actmine.pipeline.readings.bucket_edges import MIDDLE
from actmine.pipeline.readings.histograms import quantiles
from actmine.schemas.units import UNITS


def unit_table(
    layer: Layer,
    summary: dict[str, np.ndarray],
    counts: np.ndarray | None,
    further: Mapping[str, pa.Array],
    positions: np.ndarray | None = None,
) -> pa.Table:
    """One layer's units, without visualizations.

    `summary` holds the layer's part of `Statistics.summary`, `counts` `[U, BUCKETS]` its histograms, if any; `further`
    are columns made elsewhere. `positions` `[U, BUCKETS]` are histograms of positions, if any.
    """
    units = layer.units
    columns: dict[str, pa.Array] = {
        "layer": pa.array([layer.name] * units),
        "unit": pa.array(range(units), pa.int32()),
        "images_seen": pa.array(summary["images_seen"]),
        "nan_count": pa.array(summary["nan_count"]),
        "images_fired": pa.array(summary["images_fired"]),
        **{
            key: pa.array(summary[key], from_pandas=True)
            for key in ("activation_max", "activation_min", "activation_mean", "activation_std", "firing_rate")
        },
        **further,
    }
    if counts is not None:
        values = quantiles(counts, summary["activation_min"], summary["activation_max"])
        columns["activation_quantiles"] = _lists(values, summary["images_seen"] == 0)
        columns["activation_histogram"] = _lists(counts, np.zeros(units, bool))
    if positions is not None:
        columns |= _of_positions(positions, summary)
    missing = {field.name: pa.nulls(units, field.type) for field in UNITS if field.name not in columns}
    return pa.table([columns.get(name, missing.get(name)) for name in UNITS.names], schema=UNITS)


def _of_positions(counts: np.ndarray, summary: dict[str, np.ndarray]) -> dict[str, pa.Array]:
    """The columns of histograms of positions `[U, BUCKETS]`."""
    whole = counts.sum(1)
    # No position is above the strongest image, unless there were images with a NaN, which had no activation.
    most = np.where(summary["nan_count"] == 0, summary["activation_max"], np.inf)
    values = quantiles(counts, np.full(len(counts), -np.inf), most)
    rate = counts[:, MIDDLE + 1 :].sum(1) / np.maximum(whole, 1)
    return {
        "position_quantiles": _lists(values, whole == 0),
        "position_histogram": _lists(counts, np.zeros(len(counts), bool)),
        "position_firing_rate": pa.array(rate, mask=whole == 0),
    }


def _lists(values: np.ndarray, none: np.ndarray) -> pa.Array:
    """Rows of `values` as a list column, null where there are `none`."""
    units, length = values.shape
    offsets = pa.array(np.arange(units + 1, dtype=np.int32) * length, mask=np.append(none, False))
    return pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1)))
