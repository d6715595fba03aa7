"""The table `sketches/`: a layer's rows to write, and all sketches of a run to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from actmine.pipeline.errors import UserError
from actmine.pipeline.readings.sketches import Sketches, centred
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import read_rows, write_table
from actmine.schemas.sketches import sketches


def write_sketches(run: Path, layer: str, found: Sketches, part: slice, summary: Mapping[str, np.ndarray]) -> None:
    """One layer's file: the units `part` of all; `summary` is that of `Statistics` for them."""
    vectors = centred(found.sums[part].cpu().numpy(), found.ones.cpu().numpy(), summary)
    units, length = vectors.shape
    none = np.isnan(vectors[:, 0])
    values = pa.array(np.where(none[:, None], 0, vectors).reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(values, type=pa.list_(pa.float32(), length), mask=pa.array(none))
    columns = [pa.array([layer] * units, pa.string()), pa.array(range(units), pa.int32()), column]
    schema = sketches(length)
    write_table(table_file(run, "sketches", layer, new=True), schema, [pa.table(columns, schema=schema)])


@dataclass(frozen=True, slots=True)
class UnitSketches:
    """The units of some layers that have a sketch, in order.

    `layer` `[N]` is a place in `layers`, `unit` `[N]` counts within it, `vectors` `[N, L]` are float32 of norm 1.
    """

    layers: tuple[str, ...]
    layer: np.ndarray
    unit: np.ndarray
    vectors: np.ndarray


def read_sketches(run: Path, layers: Sequence[str], length: int) -> UnitSketches:
    """The sketches of `layers` of a run. Raises `UserError` where they are not there, or of another length."""
    numbers, units, vectors = [np.empty(0, np.int32)], [np.empty(0, np.int32)], [np.empty((0, length), np.float32)]
    for number, layer in enumerate(layers):
        path = table_file(run, "sketches", layer)
        if not path.is_file():
            raise UserError(f"{run} has no sketches of {layer}: {path} is not there. Mine it anew in another RUN.")
        rows = read_rows(path).combine_chunks()
        column = rows["sketch"].combine_chunks() if len(rows) else pa.array([], pa.list_(pa.float32(), length))
        if column.type.list_size != length:
            raise UserError(
                f"{path} holds sketches of length {column.type.list_size}, run.json says {length}. "
                "Mine it anew in another RUN."
            )
        there = column.is_valid().to_numpy(zero_copy_only=False)
        units.append(rows["unit"].to_numpy()[there])
        vectors.append(column.drop_null().flatten().to_numpy().reshape(-1, length))
        numbers.append(np.full(len(units[-1]), number, np.int32))
    return UnitSketches(tuple(layers), np.concatenate(numbers), np.concatenate(units), np.concatenate(vectors))


@dataclass(frozen=True, slots=True)
class UnitVariance:
    """Of the units of `UnitSketches`: the `images` `[N]` their variance is over, and how much of it one makes `alone`.

    `alone` `[N]`, 0 to 1, is that of the image furthest from the mean.
    """

    images: np.ndarray
    alone: np.ndarray


def read_variance(run: Path, found: UnitSketches) -> UnitVariance:
    """Where the variance of units with sketches comes from. Raises `UserError` without the table of units."""
    images, alone = [np.empty(0, np.int64)], [np.empty(0)]
    columns = ["images_seen", "nan_count", "activation_max", "activation_min", "activation_mean", "activation_std"]
    for number, layer in enumerate(found.layers):
        path = table_file(run, "units", layer)
        if not path.is_file():
            raise UserError(f"{run} has no units of {layer}: {path} is not there. Mine it anew in another RUN.")
        rows = read_rows(path, columns).take(pa.array(found.unit[found.layer == number]))
        seen, nan, most, least, mean, std = (
            rows[name].to_numpy().astype(np.float64) for name in columns
        )  # a unit that has a sketch has all of them
        images.append((seen + nan).astype(np.int64))
        furthest = np.maximum(most - mean, mean - least)
        alone.append(np.minimum(furthest**2 / (np.maximum(seen, 1) * std**2), 1))
    return UnitVariance(np.concatenate(images), np.concatenate(alone))
