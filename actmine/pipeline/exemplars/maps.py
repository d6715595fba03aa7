"""Activation maps of first exemplars: read as winning images go through the network, up to 32 x 32, a byte each."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from actmine.pipeline.exemplars.exemplars import Rows
from actmine.pipeline.network.grids import Grid
from actmine.pipeline.network.layouts import as_map
from actmine.pipeline.network.points import Read
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.readings.statistics_options import BOTTOM, TOP
from actmine.pipeline.readings.taps import unit_offsets
from actmine.pipeline.scanning.compute import PRECISIONS, Compute, Whole
from actmine.schemas.maps import LEVELS

MOST_CELLS = 32
"""Rows and columns of a map that is kept, at most."""
KEPT = pa.schema(
    [("row", pa.int64()), ("height", pa.int32()), ("width", pa.int32()), ("low", pa.float32()), ("high", pa.float32()),
     ("map", pa.binary()), ("other_tokens", pa.list_(pa.float32()))]
)  # fmt: skip
"""Maps on their way to the tables: `row` is a place in the rows of all exemplars."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The maps wanted of one image: arrays `[n]` of rows of exemplars, layers by number, units in them, and whether
    it is their lowest activation that counts."""

    rows: np.ndarray
    layers: np.ndarray
    units: np.ndarray
    lowest: np.ndarray


@dataclass(frozen=True, slots=True)
class MapSettings:
    """What reading maps takes: the network, how it runs, and the grids of layers by their number."""

    subject: Subject
    how: Compute
    grids: Mapping[int, Grid]


def asked_of(rows: Rows, subject: Subject, most: int, topk: int, grids: Mapping[int, Grid]) -> Mapping[int, Asked]:
    """Which maps are kept: of the first `most` exemplars at either end of each unit of layers with a grid, by image.

    Images are rows of `Merged.images`; `topk` exemplars are what each end has room for.
    """
    offsets = unit_offsets(subject.layers)
    layer = np.searchsorted(offsets, rows.unit, side="right") - 1
    first = rows.rank - rows.band.astype(np.int64) * topk < most
    ends = np.array([band in (TOP, BOTTOM) for band in rows.bands], bool)
    lowest = np.array([band == BOTTOM for band in rows.bands], bool)
    chosen = np.flatnonzero(first & ends[rows.band] & np.isin(layer, list(grids)))
    chosen = chosen[np.argsort(rows.image[chosen], kind="stable")]
    bounds = np.flatnonzero(np.diff(rows.image[chosen])) + 1
    units = rows.unit - np.array(offsets)[layer]
    return {
        int(rows.image[some[0]]): Asked(some, layer[some], units[some], lowest[rows.band[some]])
        for some in np.split(chosen, bounds)
        if len(some)
    }


def cells(size: int) -> int:
    """How many rows (or columns) of a map of `size` one that is kept stands for."""
    return -(-size // MOST_CELLS)


class MapReader:
    """The network with its maps at hand, on a device, in the precision of the scan."""

    def __init__(self, settings: MapSettings, device: torch.device) -> None:
        self.device, self.grids = device, settings.grids
        subject, preprocessing = settings.subject, settings.subject.network.preprocessing
        layers = [subject.layers[number] for number in settings.grids]
        read = [
            Read(_picked, (number, layer.layout, layer.height, layer.width))
            for number, layer in zip(settings.grids, layers, strict=True)
        ]
        network = subject.traced.reading(layers, read, list)
        shape = preprocessing.channels, *preprocessing.size
        normalize = Normalize(preprocessing, device)
        self._network = Whole(network, normalize, PRECISIONS[settings.how.precision], shape, device).to(device)

    def __call__(self, pixels: np.ndarray, asked: Sequence[Asked]) -> pa.RecordBatch:
        """What is `asked` of each image of network pixels `[B, H, W, C]`, as rows of `KEPT`.

        Maps with infinite activations are left out.
        """
        image = np.repeat(np.arange(len(asked)), [len(each.rows) for each in asked])
        rows, layer, unit, lowest = (
            np.concatenate([getattr(each, name) for each in asked]) for name in ("rows", "layers", "units", "lowest")
        )
        where = {number: np.flatnonzero(layer == number) for number in self.grids}
        _now.wanted = {number: (self._sent(image[its]), self._sent(unit[its])) for number, its in where.items()}
        with torch.inference_mode():
            maps = self._network(torch.from_numpy(pixels).to(self.device))
            found = [
                _rows(*grid.laid_out(its), torch.from_numpy(lowest[where[number]]).to(self.device), rows[where[number]])
                for (number, grid), its in zip(self.grids.items(), maps, strict=True)
                if len(its)
            ]
        return pa.Table.from_batches(found, KEPT).combine_chunks().to_batches()[0] if found else _NOTHING

    def _sent(self, numbers: np.ndarray) -> Tensor:
        return torch.from_numpy(numbers.astype(np.int64)).to(self.device)


_NOTHING = pa.record_batch([pa.array([], column.type) for column in KEPT], KEPT)
_now = threading.local()
"""Which maps the batch under way in this thread is asked for: of each layer images and units."""


def _picked(activations: Tensor, number: int, layout: str, height: int | None, width: int | None) -> Tensor:
    """The maps `[n, H, W]` wanted of a layer, float32, in memory of their own."""
    image, unit = _now.wanted[number]
    return as_map(activations, layout, height, width)[image, unit].float()


def _rows(maps: Tensor, others: Tensor, lowest: Tensor, rows: np.ndarray) -> pa.RecordBatch:
    """Maps `[n, H, W]` and the other tokens `[n, T]` as rows of `KEPT`."""
    kept = reduced(maps, lowest)
    low, high = kept.amin((1, 2)), kept.amax((1, 2))
    codes = quantized(kept, low, high).cpu().numpy()
    finite = (low.isfinite() & high.isfinite()).cpu().numpy()
    count, height, width = codes.shape
    begins = np.arange(count + 1, dtype=np.int32) * (height * width)
    data = pa.Array.from_buffers(pa.binary(), count, [None, pa.py_buffer(begins), pa.py_buffer(codes)])
    tokens = others.cpu().numpy().astype(np.float32)
    listed = pa.ListArray.from_arrays(np.arange(count + 1, dtype=np.int32) * tokens.shape[1], tokens.reshape(-1))
    columns = [
        pa.array(rows), pa.array(np.full(count, height, np.int32)), pa.array(np.full(count, width, np.int32)),
        pa.array(low.cpu().numpy()), pa.array(high.cpu().numpy()), data, listed,
    ]  # fmt: skip
    return pa.record_batch(columns, schema=KEPT).filter(pa.array(finite))


def reduced(maps: Tensor, lowest: Tensor) -> Tensor:
    """Maps `[n, H, W]` of up to 32 x 32 cells, each with its maximum, or its minimum where `lowest` `[n]`."""
    high, wide = cells(maps.shape[1]), cells(maps.shape[2])
    if high == wide == 1:
        return maps.contiguous()
    sign = torch.where(lowest, -1.0, 1.0)[:, None, None]
    pooled = torch.nn.functional.max_pool2d((maps * sign)[:, None], (high, wide), ceil_mode=True)[:, 0]
    return (pooled * sign).contiguous()


def quantized(maps: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Maps `[n, H, W]` as bytes between their smallest and largest activations `[n]`."""
    spread = (high - low).double()
    scale = torch.where((spread > 0) & spread.isfinite(), LEVELS / spread, 0.0)[:, None, None]
    return ((maps.double() - low.double()[:, None, None]) * scale).round().clamp(0, LEVELS).to(torch.uint8)
