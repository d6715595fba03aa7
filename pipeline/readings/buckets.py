"""Which bucket a float falls into, and how many positions of maps fall into each; `bucket_edges.py` has the buckets."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from pipeline.readings.bucket_edges import BELOW, BUCKETS, COARSER, FINE_END, FINE_KEY, MIDDLE, RAISED, SHIFT

_CACHED = 1 << 18  # values whose buckets are found while they are in a CPU's caches
_KEYS = 1 << (32 - SHIFT)
_MANY = 1 << 26  # values whose buckets a device holds at once


def bucket(activations: Tensor) -> Tensor:
    """The bucket of each float32, int32 of the same shape; of NaN some bucket."""
    flat = activations if activations.is_contiguous() else activations.contiguous()
    key = (flat.view(torch.int32) >> SHIFT).bitwise_and_(_KEYS - 1)
    return _table(flat.device).index_select(0, key.view(-1)).view(flat.shape)


@cache
def _table(device: torch.device) -> Tensor:
    """The bucket by the upper 14 bits of a float: sign, exponent, 5 bits of the mantissa."""
    upper = torch.arange(_KEYS, dtype=torch.int32) << SHIFT
    return computed_bucket(upper.view(torch.float32)).to(device)


def computed_bucket(activations: Tensor) -> Tensor:
    """The same as `bucket`, without a table: what compilers make one step of, and what kernels compute."""
    bits = activations.view(torch.int32)
    sign = bits >> 31  # 0, or all ones: with these `^ sign - sign` turns a number over
    fine = ((bits & 0x7FFFFFFF) >> SHIFT) - FINE_KEY
    coarse = fine >> COARSER  # it holds below, where it is larger; raised it holds beyond, where that is smaller
    size = (torch.clamp(fine, coarse, coarse + RAISED) + BELOW).clamp(0, MIDDLE)
    return (size ^ sign) - sign + MIDDLE


def count_positions(maps: Tensor, left_out: Tensor) -> Tensor:
    """How many positions of maps `[B, U, H, W]` fall into each bucket of each unit, int32 `[U, BUCKETS]`.

    NaN is counted nowhere, nor are images that are `left_out` (`[B]`, 0 for those that count).
    """
    if maps.device.type == "cpu" and not torch.compiler.is_compiling():
        return _counted(maps[left_out == 0] if bool(left_out.any()) else maps)
    return _scattered(maps, left_out)


def _counted(maps: Tensor) -> Tensor:
    """On an eager CPU: some images at a time, so that it is done within the caches, but not so few that the counts of
    all buckets cost more than the counting.
    """
    images, units = maps.shape[:2]
    each = max(1, maps[:1].numel())
    step = max(1, max(_CACHED, 2 * units * BUCKETS) // each)
    counts = torch.zeros((units, BUCKETS), dtype=torch.int32)
    for begin in range(0, images, step):
        values = maps[begin : begin + step].float()
        last = values.permute(0, 2, 3, 1)  # as they mostly lie in memory
        values, units_last = (last, True) if last.is_contiguous() else (values.contiguous(), False)
        least, most = values.aminmax()  # NaN if any is
        complete = not bool(least.isnan())
        low, high = bucket(torch.stack([least, most])).tolist() if complete else (0, BUCKETS - 1)
        width = high - low + 1
        places = _above_zero(values) if bool(least >= 0) and bool(most < FINE_END) else bucket(values)
        first = torch.arange(-low, units * width - low, width, dtype=torch.int32)
        places += first if units_last else first[:, None, None]
        if not complete:
            places = places[~values.isnan()]
        counted = torch.bincount(places.view(-1), minlength=units * width)
        counts[:, low : high + 1] += counted.view(units, width)
    return counts


def _above_zero(values: Tensor) -> Tensor:
    """The buckets of float32 from zero to `FINE_END` (as behind most activation functions): less work."""
    bits = values.view(torch.int32)
    coarse = (bits >> (SHIFT + COARSER)) + (MIDDLE + BELOW - (FINE_KEY >> COARSER))
    fine = (bits >> SHIFT).add_(MIDDLE + BELOW - FINE_KEY)
    return torch.maximum(fine, coarse, out=fine).clamp_(min=MIDDLE)


def _scattered(maps: Tensor, left_out: Tensor) -> Tensor:
    """Where asking for a value would wait, or cannot be compiled: everything is counted, some of it as nothing."""
    images, units = maps.shape[:2]
    step = images if torch.compiler.is_compiling() else max(1, _MANY // max(1, maps[:1].numel()))
    counts = torch.zeros(units * BUCKETS, dtype=torch.int32, device=maps.device)
    first = torch.arange(0, units * BUCKETS, BUCKETS, dtype=torch.int32, device=maps.device)[:, None, None]
    for begin in range(0, images, step):
        values = maps[begin : begin + step].float()
        counts_for = (left_out[begin : begin + step, None, None, None] == 0) & ~values.isnan()
        places = (computed_bucket(values) + first).to(torch.int64)
        counts.scatter_add_(0, places.reshape(-1), counts_for.to(torch.int32).reshape(-1))
    return counts.view(units, BUCKETS)
