"""Which bucket a float falls into, and how many positions of maps fall into each; `bucket_edges.py` has the buckets."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from pipeline.readings.bucket_edges import BUCKETS, MIDDLE, SHIFT, ZERO

_CACHED = 1 << 18  # values whose buckets are found while they are in a CPU's caches
_MANY = 1 << 26  # values whose buckets a device holds at once


def bucket(activations: Tensor) -> Tensor:
    """The bucket of each float32, int32 of the same shape; of NaN some bucket."""
    upper = activations.reshape(-1).contiguous().view(torch.int16)[1::2]  # sign, exponent, 7 bits of the mantissa
    return _table(activations.device)[upper.to(torch.int64)].reshape(activations.shape)


@cache
def _table(device: torch.device) -> Tensor:
    """The bucket by the upper 16 bits of a float, read as a signed number: the negative ones count from the end."""
    upper = torch.arange(1 << 16, dtype=torch.int32)
    size = (((upper & 0x7FFF) >> (SHIFT - 16)) - ZERO).clamp(0, MIDDLE)  # 0 is the middle
    return torch.where(upper >= 1 << 15, MIDDLE - size, MIDDLE + size).to(device)


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
    step = max(1, max(_CACHED, 4 * units * BUCKETS) // each)
    counts = torch.zeros(units * BUCKETS, dtype=torch.int32)
    for begin in range(0, images, step):
        values = maps[begin : begin + step].permute(0, 2, 3, 1).float()  # as they mostly lie in memory
        least = values.min()  # NaN if any is
        places = _above_zero(values) if bool(least >= 0) else _anywhere(values)
        places += torch.arange(0, units * BUCKETS, BUCKETS, dtype=torch.int32)
        if bool(least.isnan()):
            places = places[~values.isnan()]
        counts += torch.bincount(_flat(places), minlength=units * BUCKETS)
    return counts.view(units, BUCKETS)


def _above_zero(values: Tensor) -> Tensor:
    """The buckets of float32 none of which is below zero (as behind most activation functions): a third of the work."""
    return (values.view(torch.int32) >> SHIFT).clamp_(ZERO, ZERO + MIDDLE).add_(MIDDLE - ZERO)


def _anywhere(values: Tensor) -> Tensor:
    """The buckets of any float32, int32 of the same shape; of NaN some bucket."""
    bits = values.view(torch.int32)
    sign = bits >> 31  # 0, or all ones: with these `^ sign - sign` turns a number over
    size = ((bits & 0x7FFFFFFF) >> SHIFT).clamp(ZERO, ZERO + MIDDLE) - ZERO
    return (size ^ sign) - sign + MIDDLE


def _flat(places: Tensor) -> Tensor:
    """In the order of memory, if that is one of the two usual ones."""
    return (places if places.is_contiguous() else places.permute(0, 3, 1, 2)).reshape(-1)


def _scattered(maps: Tensor, left_out: Tensor) -> Tensor:
    """Where asking for a value would wait, or cannot be compiled: everything is counted, some of it as nothing."""
    images, units = maps.shape[:2]
    step = images if torch.compiler.is_compiling() else max(1, _MANY // max(1, maps[:1].numel()))
    counts = torch.zeros(units * BUCKETS, dtype=torch.int32, device=maps.device)
    first = torch.arange(0, units * BUCKETS, BUCKETS, dtype=torch.int32, device=maps.device)[:, None, None]
    for begin in range(0, images, step):
        values = maps[begin : begin + step].float()
        counts_for = (left_out[begin : begin + step, None, None, None] == 0) & ~values.isnan()
        places = (_anywhere(values) + first).to(torch.int64)
        counts.scatter_add_(0, places.reshape(-1), counts_for.to(torch.int32).reshape(-1))
    return counts.view(units, BUCKETS)
