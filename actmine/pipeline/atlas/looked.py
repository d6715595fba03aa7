"""What a network made of a picture, beside the dataset: how many of its images drive a unit as hard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actmine.pipeline.atlas.places import cell
from actmine.pipeline.atlas.queries import Queries
from actmine.pipeline.atlas.records import Unit
from actmine.pipeline.exemplars.heat import ActivationMap
from actmine.pipeline.readings.bucket_edges import BUCKETS, BUCKETS_BEFORE, PROBABILITIES, edges
from actmine.pipeline.readings.statistics_options import TOP
from actmine.pipeline.storage.files import table_file

ALIKE = 1e-4
"""Activations that differ by less, relatively, count as equal: batches and devices round in other orders."""
OF_TOP = 0.01
"""The share of a unit's images that counts as its top."""


@dataclass(frozen=True, slots=True)
class Response:
    """A layer's response to a picture: the largest activation of each unit, float32 `[U]`, and where it has places its
    `maps` `[U, H, W]` at equal parts of `place` (left, top, right, bottom in pixels of the picture)."""

    maxima: np.ndarray
    maps: np.ndarray | None = None
    place: tuple[float, float, float, float] | None = None

    def map(self, unit: int) -> ActivationMap | None:
        """One unit's map; None without places."""
        return None if self.maps is None else ActivationMap(self.maps[unit], self.place)


@dataclass(frozen=True, slots=True)
class Looked:
    """A picture of `size` (pixels), encoded again for a page as `picture`, the response of each layer by name, and what
    is to be said of how it was seen."""

    name: str
    size: tuple[int, int]
    picture: bytes
    layers: Mapping[str, Response]
    about: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """What it takes of memory."""
        maps = [each.maps for each in self.layers.values()]
        return len(self.picture) + sum(each.nbytes for each in maps if each is not None)


class Eye(Protocol):
    """Whatever shows a picture to a run's network."""

    def __call__(self, data: bytes, name: str) -> Looked:
        """What it makes of an encoded picture. Raises `UserError` for what is none."""


@dataclass(frozen=True, slots=True)
class Driven:
    """A unit and how hard a picture drives it: `low` to `high` of the `images` of the dataset drive it as hard.

    `share` is its activation as a share of its largest over the dataset.
    """

    unit: Unit
    activation: float
    low: int
    high: int
    images: int
    share: float | None = None

    @property
    def said(self) -> str:
        """How many images reach as much, in words."""
        if not self.images:
            return "no other image known"
        if not self.high:
            return f"above all {self.images:,} images"
        some = f"{self.low:,}" if self.low == self.high else f"{self.low:,} to {self.high:,}"
        return f"{some} of {self.images:,} as high"


@dataclass(frozen=True, slots=True)
class OfLayer:
    """The units of a layer that a picture drives hardest, of `firing` that it makes fire; `top` of them are among the
    strongest hundredth of what they do on the dataset, where an image has `usual` on the average."""

    layer: str
    driven: tuple[Driven, ...]
    firing: int
    top: int
    usual: float
    mapped: bool


def driven(queries: Queries, looked: Looked, layer: str, most: int) -> OfLayer:
    """The units of a layer that a picture drives hardest for what they do on the dataset: those that the fewest images
    drive as hard first, then by the share of their largest. Raises `UserError` where a table cannot be read.
    """
    response = looked.layers[layer]
    values = np.nan_to_num(response.maxima.astype(np.float64), nan=0.0)
    low, high, images = tails(queries, layer, values)
    units = queries.units(layer)
    largest = units.or_nothing("activation_max")
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(largest > 0, values / largest, np.inf)
    fires = np.flatnonzero((values > 0) & (images > 0))
    tail = high[fires] / images[fires]
    order = fires[np.lexsort((fires, -share[fires], tail))]
    shown = order[:most]
    records = units.records([place for unit in shown.tolist() if (place := units.place(unit)) is not None])
    found = tuple(
        Driven(
            record, float(values[unit]), int(low[unit]), int(high[unit]), int(images[unit]),
            float(share[unit]) if np.isfinite(share[unit]) else None,
        )
        for unit, record in zip(shown.tolist(), records, strict=True)
    )  # fmt: skip
    return OfLayer(
        layer, found, len(fires), int((tail <= OF_TOP).sum()), OF_TOP * len(values), response.maps is not None
    )


def driven_at(queries: Queries, looked: Looked, x: int, y: int, most: int) -> tuple[list[tuple[Driven, str]], int, int]:
    """The units that fire at a pixel of a picture with their layers, the highest share of their largest first; how many
    do, and of how many the place is known. Raises `UserError` where a table cannot be read.
    """
    found: list[tuple[float, str, int, float]] = []
    known = 0
    for layer, response in looked.layers.items():
        maps = response.map(0) if len(response.maxima) else None
        if maps is None or response.maps is None:
            continue
        known += len(response.maxima)
        at = cell(maps, x, y)
        if at is None:
            continue
        values = np.nan_to_num(response.maps[:, at[0], at[1]].astype(np.float64), nan=0.0)
        largest = queries.units(layer).or_nothing("activation_max")
        for unit in np.flatnonzero((values > 0) & (largest > 0)).tolist():
            found.append((values[unit] / largest[unit], layer, unit, values[unit]))
    found.sort(key=lambda row: (-row[0], row[1], row[2]))
    shown = []
    for share, layer, unit, value in found[:most]:
        record = queries.tile(layer, unit)
        if record is not None:
            shown.append((Driven(record, float(value), 0, 0, 0, float(share)), layer))
    return shown, len(found), known


def tails(queries: Queries, layer: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each unit of a layer how many images of the dataset drive it as hard as its value in `values` `[U]`.

    At least, at most, and out of how many, int64 `[U]`: exact where the exemplars tell, otherwise as the histogram's
    buckets tell, or the quantiles. Values count where they are above zero.
    """
    count = len(values)
    columns = ("unit", "images_seen", "nan_count", "activation_histogram", "activation_quantiles")
    rows = queries.reading.rows(table_file(queries.run.path, "units", layer), columns, keep=False)
    low, high, images = (np.zeros(count, np.int64) for _ in range(3))
    if rows is None:
        return low, high, images
    rows = rows.combine_chunks()
    seen, lost = (np.asarray(pc.fill_null(rows[name], 0)) for name in ("images_seen", "nan_count"))
    for at, unit in enumerate(rows["unit"].to_pylist()):
        if unit >= count:
            continue
        images[unit] = seen[at] - lost[at]
        low[unit], high[unit] = 0, images[unit]
        if (counts := _list(rows, "activation_histogram", at)) is not None:
            low[unit], high[unit] = _by_buckets(counts, values[unit])
        elif (quantiles := _list(rows, "activation_quantiles", at)) is not None:
            high[unit] = _by_quantiles(quantiles, values[unit], int(images[unit]))
    return (*_by_exemplars(queries, layer, values, low, high), images)


def _list(rows: pa.Table, name: str, at: int) -> np.ndarray | None:
    """The list in a cell; None where there is none."""
    found = rows[name][at] if name in rows.column_names else None
    return found.values.to_numpy(zero_copy_only=False) if found is not None and found.is_valid and len(found) else None


def _by_buckets(counts: np.ndarray, value: float) -> tuple[int, int]:
    if len(counts) not in (BUCKETS, BUCKETS_BEFORE):
        return 0, int(counts.sum())
    at = edges(len(counts))
    first = int(np.searchsorted(at, value * (1 + ALIKE), "right"))
    last = int(np.searchsorted(at, value * (1 - ALIKE), "right")) - 1
    return int(counts[first:].sum()), int(counts[last:].sum())


def _by_quantiles(quantiles: np.ndarray, value: float, images: int) -> int:
    below = [share for share, at in zip(PROBABILITIES, quantiles.tolist(), strict=False) if at < value * (1 - ALIKE)]
    return round(images * (1 - max(below))) if below else images


def _by_exemplars(
    queries: Queries, layer: str, values: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """With what the strongest images tell: all that are as high, if there is one among them that is not.

    Where a run left out near-duplicates, others may be as high.
    """
    columns = ("unit", "activation", "band")
    rows = queries.reading.rows(table_file(queries.run.path, "exemplars", layer), columns, keep=False)
    if rows is None or queries.end != TOP:
        return low, high
    if "band" in rows.column_names:
        rows = rows.filter(pc.equal(pc.fill_null(rows["band"], TOP), TOP))
    unit, activation = (rows[name].to_numpy() for name in ("unit", "activation"))
    inside = unit < len(values)
    unit, activation = unit[inside], activation[inside]
    reached = activation >= values[unit] * (1 - ALIKE)
    as_high = np.bincount(unit[reached], minlength=len(values))
    all_told = (np.bincount(unit, minlength=len(values)) > as_high) & (not queries.run.record.get("unique", False))
    return np.where(all_told, as_high, np.maximum(low, as_high)), np.where(all_told, as_high, np.maximum(high, as_high))


def shown_layers(queries: Queries, looked: Looked) -> Sequence[str]:
    """The layers of a run that a picture was read in, the last first."""
    return [name for name in reversed(queries.layers) if name in looked.layers]
