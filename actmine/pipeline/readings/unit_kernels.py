"""What accumulators do with readings on a GPU, each in one Triton kernel: the k best, statistics, histograms, labels.

Every program has some units to itself and goes through the images of a batch in their order, so that results are the
same in every run. Triton's interpreter runs the same on a CPU, where tests compare it with what accumulators do there.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from actmine.pipeline.readings.bucket_edges import BELOW, BUCKETS, COARSER, FINE_KEY, MIDDLE, RAISED, SHIFT

_EMPTY = tl.constexpr(torch.iinfo(torch.int64).min)
_NEVER = tl.constexpr(torch.iinfo(torch.int64).max)
_SHIFT, _COARSER, _FINE_KEY = tl.constexpr(SHIFT), tl.constexpr(COARSER), tl.constexpr(FINE_KEY)
_RAISED, _BELOW, _MIDDLE = tl.constexpr(RAISED), tl.constexpr(BELOW), tl.constexpr(MIDDLE)


@triton.jit
def bucket_size(value):  # type: ignore[no-untyped-def]
    """How far from the middle the bucket of a float32 is, and its sign: 0, or -1 for all ones."""
    bits = value.to(tl.int32, bitcast=True)
    fine = ((bits & 0x7FFFFFFF) >> _SHIFT) - _FINE_KEY
    coarse = fine >> _COARSER
    size = tl.minimum(tl.maximum(fine, coarse), coarse + _RAISED) + _BELOW
    return tl.minimum(tl.maximum(size, 0), _MIDDLE), bits >> 31


@triton.jit
def _packed(value, number):  # type: ignore[no-untyped-def]
    """`topk.pack` of values and image numbers."""
    plain = tl.where(value == 0, 0.0, value)  # -0.0 and 0.0 are the same activation
    bits = plain.to(tl.int32, bitcast=True)
    ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64)
    return tl.where(value == value, (ordered << 32) | (0xFFFFFFFF - number), _EMPTY)


@triton.jit
def _keep_best(  # type: ignore[no-untyped-def]
    keys, positions, maximum, position, numbers, images, units, k,
    BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_U: tl.constexpr,
):  # fmt: skip
    """Some images at a time against the least entry that is held, which gives way to the best until none is better."""
    unit = tl.program_id(0) * BLOCK_U + tl.arange(0, BLOCK_U)
    slot, lane = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_N)
    there = unit < units
    held_at = unit[None, :].to(tl.int64) * k + slot[:, None]
    holds = (slot < k)[:, None] & there[None, :]
    held = tl.load(keys + held_at, mask=holds, other=_NEVER)
    held = tl.where(held == _EMPTY, slot[:, None].to(tl.int64) + _EMPTY, held)  # below every entry, and no two alike
    held_position = tl.load(positions + held_at, mask=holds, other=0)
    for start in range(0, images, BLOCK_N):
        image = start + lane
        inside = (image < images)[:, None] & there[None, :]
        at = image[:, None].to(tl.int64) * units + unit[None, :]
        value = tl.load(maximum + at, mask=inside, other=float("nan"))
        place = tl.load(position + at, mask=inside, other=0).to(tl.int32)
        number = tl.load(numbers + image, mask=image < images, other=0)
        key = _packed(value, number[:, None])
        least = tl.min(held, 0)
        best = tl.max(key, 0)
        while tl.max((best > least).to(tl.int32), 0) > 0:
            enters = (held == least[None, :]) & (best > least)[None, :]
            taken = key == best[None, :]
            held = tl.where(enters, best[None, :], held)
            held_position = tl.where(enters, tl.max(tl.where(taken, place, 0), 0)[None, :], held_position)
            key = tl.where(taken, _EMPTY, key)
            least = tl.min(held, 0)
            best = tl.max(key, 0)
    tl.store(keys + held_at, tl.where(held < _EMPTY + BLOCK_K, _EMPTY, held), mask=holds)
    tl.store(positions + held_at, held_position, mask=holds)


def keep_best(keys: Tensor, positions: Tensor, maximum: Tensor, position: Tensor, numbers: Tensor) -> None:
    """Takes images into the k best of each unit, in place: packed `keys` int64 and `positions` int32 `[U, k]`.

    `maximum` float32 and `position` `[N, U]` of the images `numbers`, int64 `[N]`. All entries of a unit are held in
    registers: some hundred at most.
    """
    (units, k), images = keys.shape, len(maximum)
    block_k = triton.next_power_of_2(k)
    block_u = max(min(256 // block_k, 4), 1)  # of a warp, which reduces without waiting for another
    _keep_best[(triton.cdiv(units, block_u),)](
        keys, positions, maximum, position, numbers, images, units, k,
        BLOCK_K=block_k, BLOCK_N=min(64, triton.next_power_of_2(images)), BLOCK_U=block_u, num_warps=1,
    )  # fmt: skip


@triton.jit
def _statistics(  # type: ignore[no-untyped-def]
    maximum, images_of, nan, fired, total, squares, most, least, images, units,
    BLOCK_N: tl.constexpr, BLOCK_U: tl.constexpr,
):  # fmt: skip
    """Counts, sums and extremes of some units, added to those there are."""
    unit = tl.program_id(0) * BLOCK_U + tl.arange(0, BLOCK_U)
    lane = tl.arange(0, BLOCK_N)
    there = unit < units
    missing = tl.zeros([BLOCK_N, BLOCK_U], tl.int32)
    above = tl.zeros([BLOCK_N, BLOCK_U], tl.int32)
    added = tl.zeros([BLOCK_N, BLOCK_U], tl.float64)
    squared = tl.zeros([BLOCK_N, BLOCK_U], tl.float64)
    highest = tl.full([BLOCK_N, BLOCK_U], float("-inf"), tl.float32)
    deepest = tl.full([BLOCK_N, BLOCK_U], float("inf"), tl.float32)
    for start in range(0, images, BLOCK_N):
        image = start + lane
        inside = (image < images)[:, None] & there[None, :]
        value = tl.load(maximum + image[:, None].to(tl.int64) * units + unit[None, :], mask=inside, other=0.0)
        number = inside & (value == value)
        missing += (inside & (value != value)).to(tl.int32)
        above += (number & (value > 0)).to(tl.int32)
        wide = tl.where(number, value, 0.0).to(tl.float64)
        added += wide
        squared += wide * wide
        highest = tl.maximum(highest, tl.where(number, value, float("-inf")))
        deepest = tl.minimum(deepest, tl.where(number, value, float("inf")))
    lacking = tl.sum(missing, 0)
    tl.store(images_of + unit, tl.load(images_of + unit, mask=there) + (images - lacking), mask=there)
    tl.store(nan + unit, tl.load(nan + unit, mask=there) + lacking, mask=there)
    tl.store(fired + unit, tl.load(fired + unit, mask=there) + tl.sum(above, 0), mask=there)
    tl.store(total + unit, tl.load(total + unit, mask=there) + tl.sum(added, 0), mask=there)
    tl.store(squares + unit, tl.load(squares + unit, mask=there) + tl.sum(squared, 0), mask=there)
    tl.store(most + unit, tl.maximum(tl.load(most + unit, mask=there), tl.max(highest, 0)), mask=there)
    tl.store(least + unit, tl.minimum(tl.load(least + unit, mask=there), tl.min(deepest, 0)), mask=there)


def add_statistics(of: dict[str, Tensor], maximum: Tensor) -> None:
    """Adds readings `[N, U]` to the tensors of `Statistics`, by name, in place."""
    images, units = maximum.shape
    names = ("images", "nan", "fired", "sum", "square_sum", "maximum", "minimum")
    _statistics[(triton.cdiv(units, 32),)](
        maximum, *(of[name] for name in names), images, units, BLOCK_N=16, BLOCK_U=32, num_warps=4
    )


@triton.jit
def _count(  # type: ignore[no-untyped-def]
    values, counts, images, units, BLOCK_N: tl.constexpr, BLOCK_U: tl.constexpr,
    BUCKETS: tl.constexpr, MIDDLE: tl.constexpr,
):  # fmt: skip
    """The bucket of every value of some units."""
    unit = tl.program_id(0) * BLOCK_U + tl.arange(0, BLOCK_U)
    image = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (image < images)[:, None] & (unit < units)[None, :]
    value = tl.load(values + image[:, None].to(tl.int64) * units + unit[None, :], mask=inside, other=float("nan"))
    size, sign = bucket_size(value)
    to = counts + unit[None, :].to(tl.int64) * BUCKETS + ((size ^ sign) - sign + MIDDLE)
    tl.atomic_add(to, 1, mask=value == value, sem="relaxed")


def count(counts: Tensor, values: Tensor) -> None:
    """Counts values float32 `[N, U]` into buckets, integers `[U, BUCKETS]`, in place; NaN into none."""
    images, units = values.shape
    _count[triton.cdiv(units, 64), triton.cdiv(images, 32)](
        values, counts, images, units, BLOCK_N=32, BLOCK_U=64,
        BUCKETS=BUCKETS, MIDDLE=MIDDLE, num_warps=4,
    )  # fmt: skip


@triton.jit
def _end_row(missing, total, largest, at, there, lacks, added, most):  # type: ignore[no-untyped-def]
    """Adds what a row came to to what there is."""
    tl.store(missing + at, tl.load(missing + at, mask=there) + lacks, mask=there)
    tl.store(total + at, tl.load(total + at, mask=there) + added, mask=there)
    tl.store(largest + at, tl.maximum(tl.load(largest + at, mask=there), most), mask=there)


@triton.jit
def _add_labelled(  # type: ignore[no-untyped-def]
    values, order, rows, missing, total, largest, square, images, units,
    T: tl.constexpr, U: tl.constexpr,
):  # fmt: skip
    """Images in the order of their rows, T at a time; what a row came to is added to what there is when it ends."""
    unit = tl.program_id(0) * U + tl.arange(0, U)
    lane = tl.arange(0, T)
    there = unit < units
    row = tl.load(rows)
    lacks = tl.zeros([U], tl.int32)
    added = tl.zeros([U], tl.float64)
    most = tl.full([U], float("-inf"), tl.float32)
    squares_of_one = tl.zeros([U], tl.float64)
    squares_of_other = tl.zeros([U], tl.float64)
    for start in range(0, images, T):
        inside = start + lane < images
        image = tl.load(order + start + lane, mask=inside, other=0)
        some = tl.load(
            values + image[:, None] * units + unit[None, :], mask=inside[:, None] & there[None, :], other=0.0
        )
        for turn in tl.static_range(T):
            if start + turn < images:
                its = tl.load(rows + start + turn)
                if its != row:
                    _end_row(missing, total, largest, row * units + unit, there, lacks, added, most)
                    row = its
                    lacks = tl.zeros([U], tl.int32)
                    added = tl.zeros([U], tl.float64)
                    most = tl.full([U], float("-inf"), tl.float32)
                value = tl.sum(tl.where((lane == turn)[:, None], some, 0.0), 0)
                number = value == value
                wide = tl.where(number, value, 0.0).to(tl.float64)
                lacks += 1 - number.to(tl.int32)
                added += wide
                most = tl.maximum(most, tl.where(number, value, float("-inf")))
                if its % 2 == 0:
                    squares_of_one += wide * wide
                else:
                    squares_of_other += wide * wide
    _end_row(missing, total, largest, row * units + unit, there, lacks, added, most)
    tl.store(square + unit, tl.load(square + unit, mask=there) + squares_of_one, mask=there)
    tl.store(square + units + unit, tl.load(square + units + unit, mask=there) + squares_of_other, mask=there)


def add_labelled(values: Tensor, row: Tensor, missing: Tensor, total: Tensor, largest: Tensor, square: Tensor) -> None:
    """Adds values `[N, U]` to the rows int64 `[N]` of `missing`, `total` and `largest` `[R, U]`, in place.

    NaN count as missing alone. `square` `[2, U]`: the squares of even and of odd rows.
    """
    images, units = values.shape
    rows, order = row.sort(stable=True)
    _add_labelled[(triton.cdiv(units, 128),)](
        values, order, rows, missing, total, largest, square, images, units, T=8, U=128, num_warps=1
    )


@triton.jit
def _in_two(values, upper, rest, entries, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(values + at, mask=at < entries, other=0.0)
    value = tl.where(value == value, value, 0.0)
    finite = tl.where(tl.abs(value) == float("inf"), 0.0, value)
    most = (finite.to(tl.int32, bitcast=True) & -0x2000).to(tl.float32, bitcast=True)
    tl.store(upper + at, tl.where(value == finite, most, value), mask=at < entries)
    tl.store(rest + at, finite - most, mask=at < entries)


def in_two(values: Tensor) -> Tensor:
    """Float32 `[N, U]` as a sum `[2 N, U]`: the upper 11 bits, then the rest; NaN as 0, infinities among the first."""
    images, units = values.shape
    parts = torch.empty((2 * images, units), dtype=torch.float32, device=values.device)
    entries = values.numel()
    _in_two[(triton.cdiv(entries, 1024),)](values, parts[:images], parts[images:], entries, BLOCK=1024)
    return parts
