"""Which bucket a float falls into, and how many positions of maps fall into each; `bucket_edges.py` has the buckets."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from actmine.pipeline.readings.bucket_edges import BELOW, BUCKETS, COARSER, FINE, FINE_KEY, MIDDLE, RAISED, SHIFT

_CACHED = 1 << 18  # values whose buckets are found while they are in a CPU's caches
_KEYS = 1 << (32 - SHIFT)
_FINE_END_BITS = (FINE_KEY + FINE) << SHIFT  # those of 2**13
_ZERO_KEY = FINE_KEY - (FINE_KEY >> COARSER)
_TINY = (1 << (23 - SHIFT - COARSER)) - 1  # coarse buckets that denormal numbers would have beside that of zero
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
    """On an eager CPU: some values at a time, so that it is done within the caches, but not so few that the counts of
    all buckets cost more than the counting. Counted are those buckets only that lie between the extremes.
    """
    units = maps.shape[1]
    counts = torch.zeros((units, BUCKETS), dtype=torch.int32)
    last = maps.permute(0, 2, 3, 1)  # as they mostly lie in memory
    values, of_units = (last.flatten(0, 2), (units,)) if last.is_contiguous() else (maps.flatten(2), (units, 1))
    step = max(1, max(_CACHED, 2 * units * BUCKETS) // max(1, values[:1].numel()))
    for part in values.split(step) if values.numel() else ():
        part = part.float().contiguous()
        bits, complete = part.view(torch.int32), True
        fewest, most = (int(bound) for bound in bits.aminmax())
        if above_zero := fewest >= 0 and most < _FINE_END_BITS:
            places, start, low = _above_zero(bits), _ZERO_KEY, MIDDLE - _TINY
            high = int(bucket(torch.tensor(most, dtype=torch.int32).view(torch.float32)))
        else:
            ends = torch.stack(part.aminmax())  # NaN if any is
            complete = not bool(ends.isnan().any())
            low, high = bucket(ends).tolist() if complete else (0, BUCKETS - 1)
            places, start = bucket(part), low
        width = high - low + 1
        places += torch.arange(-start, units * width - start, width, dtype=torch.int32).view(of_units)
        if not complete:
            places = places[~part.isnan()]
        found = torch.bincount(places.view(-1), minlength=units * width).view(units, width)
        if above_zero:
            counts[:, MIDDLE] += found[:, :_TINY].sum(1)
            low, found = MIDDLE, found[:, _TINY:]
        counts[:, low : high + 1] += found
    return counts


def _above_zero(bits: Tensor) -> Tensor:
    """Of the bits of float32 from zero to 2**13 (as behind most activation functions) the bucket in half the steps, but
    by another number: zero has `_ZERO_KEY`, and what else is in the middle bucket up to `_TINY` more.
    """
    coarse = (bits >> (SHIFT + COARSER)).add_(_ZERO_KEY)
    return torch.maximum(coarse, bits >> SHIFT, out=coarse)


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
