"""Activation maps of first exemplars: read as winning images go through the network, up to 32 x 32, a byte each."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from actmine.pipeline.exemplars.exemplars import Rows
from actmine.pipeline.network.devices import in_halves
from actmine.pipeline.network.encoded import has_tokens
from actmine.pipeline.network.grids import Grid
from actmine.pipeline.network.layouts import as_map
from actmine.pipeline.network.points import Read
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.network.token_norms import norm_ratios
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.readings.statistics_options import BOTTOM, TOP
from actmine.pipeline.readings.taps import unit_offsets
from actmine.pipeline.scanning.compute import PRECISIONS, Compute, Whole
from actmine.schemas.maps import LEVELS

MOST_CELLS = 32
"""Rows and columns of a map that is kept, at most."""
KEPT = pa.schema(
    [("row", pa.int64()), ("height", pa.int32()), ("width", pa.int32()), ("low", pa.float32()), ("high", pa.float32()),
     ("map", pa.binary()), ("other_tokens", pa.list_(pa.float32())), ("token_norm_ratio", pa.float32())]
)  # fmt: skip
"""Maps on their way to the tables: `row` is a place in the rows of all exemplars. Rows of tokens whose map is not kept
have `token_norm_ratio` alone."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The maps wanted of one image: arrays `[n]` of rows of exemplars, layers by number, units in them, and whether
    it is their lowest activation that counts. `tokens` `[m, 3]` are rows, layers and tokens whose norm is wanted."""

    rows: np.ndarray
    layers: np.ndarray
    units: np.ndarray
    lowest: np.ndarray
    tokens: np.ndarray


@dataclass(frozen=True, slots=True)
class MapSettings:
    """What reading maps takes: the network, how it runs, and the grids of layers by their number."""

    subject: Subject
    how: Compute
    grids: Mapping[int, Grid]

    @property
    def tokens(self) -> list[int]:
        """Layers of tokens, by their number."""
        return _of_tokens(self.subject)


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
    units = rows.unit - np.array(offsets)[layer]
    firsts = np.array([each.latents.first if each.latents else 0 for each in subject.layers])
    on_tokens = np.flatnonzero(np.isin(layer, _of_tokens(subject)))
    token = rows.y + firsts[layer]
    of_image = _by_image(rows.image, on_tokens)
    maps = _by_image(rows.image, chosen)
    none = np.empty(0, np.int64)
    return {
        image: Asked(
            some := maps.get(image, none), layer[some], units[some], lowest[rows.band[some]],
            np.stack([its := of_image.get(image, none), layer[its], token[its]], 1),
        )
        for image in sorted({*maps, *of_image})
    }  # fmt: skip


def _by_image(image: np.ndarray, rows: np.ndarray) -> dict[int, np.ndarray]:
    """Some `rows` of exemplars by their image."""
    ordered = rows[np.argsort(image[rows], kind="stable")]
    parts = np.split(ordered, np.flatnonzero(np.diff(image[ordered])) + 1)
    return {int(image[part[0]]): part for part in parts if len(part)}


def _of_tokens(subject: Subject) -> list[int]:
    """Layers whose positions are tokens, by their number."""
    return [number for number, layer in enumerate(subject.layers) if has_tokens(layer.own) and layer.height is not None]


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
        self.tokens = settings.tokens
        of_tokens = {subject.layers[number].own.node: subject.layers[number].own for number in self.tokens}
        self._place = {node: place for place, node in enumerate(of_tokens, len(layers))}
        self._node = {number: subject.layers[number].own.node for number in self.tokens}
        read += [Read(norm_ratios, (layer.layout,)) for layer in of_tokens.values()]
        network = subject.traced.reading([*layers, *of_tokens.values()], read, list)
        shape = preprocessing.channels, *preprocessing.size
        normalize = Normalize(preprocessing, device)
        self._network = Whole(network, normalize, PRECISIONS[settings.how.precision], shape, device).to(device)

    def __call__(self, pixels: np.ndarray, asked: Sequence[Asked]) -> pa.RecordBatch:
        """What is `asked` of each image of network pixels `[B, H, W, C]`, as rows of `KEPT`.

        Maps with infinite activations are left out. Where a GPU has no room for the maps of all images, the same batch
        goes through the network again for those of some.
        """

        def read(some: Sequence[int]) -> list[pa.RecordBatch]:
            return self._read(pixels, [each if number in some else _NOT_ASKED for number, each in enumerate(asked)])

        found = in_halves(read, range(len(asked)))
        return next(iter(pa.Table.from_batches(found, KEPT).combine_chunks().to_batches()), _NOTHING)

    def _read(self, pixels: np.ndarray, asked: Sequence[Asked]) -> list[pa.RecordBatch]:
        image = np.repeat(np.arange(len(asked)), [len(each.rows) for each in asked])
        rows, layer, unit, lowest = (
            np.concatenate([getattr(each, name) for each in asked]) for name in ("rows", "layers", "units", "lowest")
        )
        order = np.argsort(layer, kind="stable")
        sent = self._sent(np.stack([image[order], unit[order], lowest[order]]))
        ends = [np.searchsorted(layer[order], [*self.grids], side).tolist() for side in ("left", "right")]
        its = {number: slice(*span) for number, *span in zip(self.grids, *ends, strict=True)}
        _now.wanted = {number: (sent[0, some], sent[1, some]) for number, some in its.items()}
        there = [(place, number) for place, (number, some) in enumerate(its.items()) if some.start < some.stop]
        with torch.inference_mode():
            maps = self._network(torch.from_numpy(pixels).to(self.device))
            laid = [(*self.grids[number].laid_out(maps[place]), its[number]) for place, number in there]
            alike = defaultdict(list)  # layers of one size are quantized together
            for grid, others, some in laid:
                alike[grid.shape[1:], others.shape[1]].append((grid, others, sent[2, some] > 0, rows[order[some]]))
            columns = [tuple(zip(*some, strict=True)) for some in alike.values()]
            kept = [_Kept.of(*(torch.cat(each) for each in some[:3])) for some in columns]
            found = [
                _rows(fields, np.concatenate(some[3])) for fields, some in zip(_fetched(kept), columns, strict=True)
            ]
            if self.tokens:
                found += self._norms(asked, maps)
        return found

    def _norms(self, asked: Sequence[Asked], read: Sequence[Tensor]) -> Iterator[pa.RecordBatch]:
        """How long the token of each exemplar is, as rows of `KEPT` without maps."""
        image = np.repeat(np.arange(len(asked)), [len(each.tokens) for each in asked])
        rows, layer, token = np.concatenate([each.tokens for each in asked]).T
        for number in self.tokens:
            its = np.flatnonzero(layer == number)
            norms = read[self._place[self._node[number]]]
            ratios = norms[self._sent(image[its]), self._sent(token[its])].float().cpu().numpy()
            columns = {name.name: pa.nulls(len(its), name.type) for name in KEPT}
            columns |= {"row": pa.array(rows[its]), "token_norm_ratio": pa.array(ratios)}
            yield pa.record_batch([columns[name] for name in KEPT.names], KEPT)

    def _sent(self, numbers: np.ndarray) -> Tensor:
        return torch.from_numpy(numbers.astype(np.int64)).to(self.device)


_NOTHING = pa.record_batch([pa.array([], column.type) for column in KEPT], KEPT)
_NONE = np.empty(0, np.int64)
_NOT_ASKED = Asked(_NONE, _NONE, _NONE, _NONE.astype(bool), np.empty((0, 3), np.int64))
_now = threading.local()
"""Which maps the batch under way in this thread is asked for: of each layer images and units."""


def _picked(activations: Tensor, number: int, layout: str, height: int | None, width: int | None) -> Tensor:
    """The maps `[n, H, W]` wanted of a layer, float32, in memory of their own."""
    image, unit = _now.wanted[number]
    return as_map(activations, layout, height, width)[image, unit].float()


class _Kept(NamedTuple):
    """What is kept of maps of one layer: `codes` `[n, H, W]` between `low` and `high` `[n]`, and `others` `[n, T]`."""

    codes: Tensor
    low: Tensor
    high: Tensor
    others: Tensor

    @classmethod
    def of(cls, maps: Tensor, others: Tensor, lowest: Tensor) -> _Kept:
        """Of maps `[n, H, W]`, of which the minimum counts where `lowest` `[n]`."""
        kept = reduced(maps, lowest)
        low, high = kept.amin((1, 2)), kept.amax((1, 2))
        return cls(quantized(kept, low, high), low, high, others.float())


def _fetched(kept: Sequence[_Kept]) -> Iterator[list[np.ndarray]]:
    """The fields of each, fetched from the device together: to wait for every layer would take longer than its work."""
    if not kept:
        return
    flat = [torch.cat([its.flatten() for its in field]).cpu().numpy() for field in zip(*kept, strict=True)]
    begins = [0] * len(flat)
    for each in kept:
        ends = [begin + field.numel() for begin, field in zip(begins, each, strict=True)]
        yield [its[b:e].reshape(field.shape) for its, b, e, field in zip(flat, begins, ends, each, strict=True)]
        begins = ends


def _rows(fields: Sequence[np.ndarray], rows: np.ndarray) -> pa.RecordBatch:
    """What is kept of some exemplars, as `_Kept` has it, in rows of `KEPT`; infinite maps are left out."""
    codes, low, high, others = fields
    count, height, width = codes.shape
    begins = np.arange(count + 1, dtype=np.int32) * (height * width)
    data = pa.Array.from_buffers(pa.binary(), count, [None, pa.py_buffer(begins), pa.py_buffer(codes)])
    listed = pa.ListArray.from_arrays(np.arange(count + 1, dtype=np.int32) * others.shape[1], others.reshape(-1))
    columns = [
        pa.array(rows), pa.array(np.full(count, height, np.int32)), pa.array(np.full(count, width, np.int32)),
        pa.array(low), pa.array(high), data, listed, pa.nulls(count, pa.float32()),
    ]  # fmt: skip
    return pa.record_batch(columns, schema=KEPT).filter(pa.array(np.isfinite(low) & np.isfinite(high)))


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
    if maps.device.type == "mps":  # which has no float64
        maps, low, high = maps.cpu(), low.cpu(), high.cpu()
    spread = (high - low).double()
    scale = torch.where((spread > 0) & spread.isfinite(), LEVELS / spread, 0.0)[:, None, None]
    return ((maps.double() - low.double()[:, None, None]) * scale).round().clamp(0, LEVELS).to(torch.uint8)
