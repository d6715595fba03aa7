"""Which images are shown for every unit: both ends of its activations, and random ones from around percentiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from actmine.pipeline.preprocessing.signatures import comparable, firsts
from actmine.pipeline.readings.accumulators import Accumulator
from actmine.pipeline.readings.histograms import Histograms, ranked
from actmine.pipeline.readings.histograms import bucket as bucket_of
from actmine.pipeline.readings.samples import Sample
from actmine.pipeline.readings.statistics_options import BOTTOM, RANDOM, TOP, StatisticsOptions, band_name
from actmine.pipeline.readings.topk import unpack
from actmine.pipeline.scanning.merge import Merged

_WIDEST = 5.0  # percent of the images that a band spans; less near the ends
_NARROWEST = 1.0


@dataclass(frozen=True, slots=True)
class Winners:
    """Exemplars ordered by unit and rank; every array has one entry a row.

    `unit` counts all units of all layers from 0; `band` is a place in `bands`; `rank` counts on from band to band, each
    beginning where the one before would end if it were full. `position` is the place in the layer's map, row by row.
    """

    bands: tuple[str, ...]
    unit: np.ndarray
    band: np.ndarray
    rank: np.ndarray
    activation: np.ndarray
    image_id: np.ndarray
    position: np.ndarray


def winners(merged: Merged, keep: StatisticsOptions) -> Winners:
    """The exemplars of every unit of a merged scan. Units with fewer images have fewer rows."""
    names: list[str] = []
    parts: list[tuple[np.ndarray, ...]] = []
    first = 0
    for name, kind, sign in ((TOP, "topk", 1), (BOTTOM, "lowest", -1)):
        if kind in merged.accumulators:
            end = _end(merged.accumulators[kind], sign, len(names), first)
            parts.append(_different(end, merged, keep.topk, first) if keep.unique else end)
            names.append(name)
            first += keep.topk
    for percentile, inside in zip(keep.bands, _inside(merged, keep.bands), strict=True):
        parts.append(_drawn(merged, inside, keep.band_images, len(names), first))
        names.append(band_name(percentile))
        first += keep.band_images
    if keep.random_images:
        parts.append(_drawn(merged, _anywhere(merged), keep.random_images, len(names), first))
        names.append(RANDOM)
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.lexsort((columns[2], columns[0]))
    return Winners(tuple(names), *(column[order] for column in columns))


def _end(accumulator: Accumulator, sign: int, band: int, first: int) -> tuple[np.ndarray, ...]:
    state = accumulator.state()
    activation, image_id, empty = (tensor.cpu().numpy() for tensor in unpack(state["keys"]))
    if "rows" in state:
        rows = state["rows"].cpu().numpy()
        unit = np.repeat(np.arange(len(rows)), rows)
        rank = np.arange(len(unit)) - (np.cumsum(rows) - rows)[unit]
        return _columns(unit, band, rank + first, sign * activation, image_id, state["positions"].cpu().numpy())
    unit, rank = np.nonzero(~empty)
    position = state["positions"].cpu().numpy()[unit, rank]
    return _columns(unit, band, rank + first, sign * activation[unit, rank], image_id[unit, rank], position)


def _different(end: tuple[np.ndarray, ...], merged: Merged, most: int, first: int) -> tuple[np.ndarray, ...]:
    """Of each unit the first `most` images that are no near-duplicates of better ones; the next best move up."""
    unit, image_id = end[0], end[4]
    place = np.searchsorted(merged.images["image"].to_numpy(), image_id)
    vectors = comparable(merged.images["signature"].to_pylist())
    starts = np.flatnonzero(np.diff(unit, prepend=-1))
    groups = zip(starts, np.append(starts[1:], len(unit)), strict=True)
    kept = [(begin + firsts(vectors[place[begin:end_]], most)) for begin, end_ in groups]
    rows = np.concatenate(kept) if kept else np.empty(0, np.int64)
    rank = np.concatenate([np.arange(len(part)) for part in kept]) if kept else rows
    return unit[rows], end[1][rows], rank + first, *(column[rows] for column in end[3:])


def _inside(merged: Merged, bands: Sequence[float]) -> Iterator[np.ndarray]:
    """For each band which of the sample's images lie in it, `[N, U]`.

    A band spans 5% of the images, or as much as is left on its nearer side, but at least 1%; its ends fall on those of
    the histogram's buckets.
    """
    if not bands:
        return
    sample, histograms = merged.accumulators["sample"], merged.accumulators["histograms"]
    assert isinstance(sample, Sample)
    assert isinstance(histograms, Histograms)
    values = sample.maximum.cpu()
    buckets, numbers = bucket_of(values).numpy(), ~values.isnan().numpy()
    halves = [max(min(band, 100 - band, _WIDEST), _NARROWEST) / 2 for band in bands]
    pairs = [(max(band - half, 0.0), min(band + half, 100.0)) for band, half in zip(bands, halves, strict=True)]
    places, _ = ranked(histograms.counts.cpu().numpy(), tuple(end / 100 for pair in pairs for end in pair))
    for low, high in zip(places.T[::2], places.T[1::2], strict=True):
        yield (buckets >= low) & (buckets <= high) & numbers


def _anywhere(merged: Merged) -> np.ndarray:
    """All images of the sample of which a unit has a number, `[N, U]`."""
    sample = merged.accumulators["sample"]
    assert isinstance(sample, Sample)
    found: np.ndarray = ~sample.maximum.cpu().isnan().numpy()
    return found


def _drawn(merged: Merged, inside: np.ndarray, count: int, band: int, first: int) -> tuple[np.ndarray, ...]:
    """Of each unit the first `count` images of the sample that lie `inside` `[N, U]`, those with the highest first."""
    sample = merged.accumulators["sample"]
    assert isinstance(sample, Sample)
    values, numbers = sample.maximum.cpu(), sample.numbers.cpu().numpy()
    inside = inside & (inside.cumsum(0) <= count)
    unit, drawn = np.nonzero(inside.T)
    activation, image_id = values.numpy()[drawn, unit], numbers[drawn]
    order = np.lexsort((image_id, -activation, unit))
    unit, drawn = unit[order], drawn[order]
    rank = np.arange(len(unit)) - np.searchsorted(unit, unit)
    position = sample.position.cpu().numpy()[drawn, unit]
    return _columns(unit, band, rank + first, activation[order], image_id[order], position)


def _columns(unit: np.ndarray, band: int, *rest: np.ndarray) -> tuple[np.ndarray, ...]:
    return unit, np.full(len(unit), band, np.int8), *rest
