"""A layer's map read once on a GPU: maximum and first position of each unit, on request minimum, one position, counts.

Nothing but Triton kernels and how they are launched; `tap_operator` is what everything else calls. Triton's interpreter
runs the same on a CPU, where tests compare it with `reductions.read_map`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from actmine.pipeline.readings.bucket_edges import BUCKETS, MIDDLE
from actmine.pipeline.readings.unit_kernels import bucket_size

_PROGRAMS = 1024
"""As many keep all multiprocessors of a large GPU at work; maps of few units are divided among several for it."""
_LEAST_PLACES = 512  # of a part of a divided map


@triton.jit
def larger(value, place, other, elsewhere):  # type: ignore[no-untyped-def]
    """The larger of two values with its place, the first of equal ones; NaN is larger than all."""
    first = (value > other) | ((value == other) & (place < elsewhere)) | (value != value)
    return tl.where(first, value, other), tl.where(first, place, elsewhere)


@triton.jit
def _sweep(  # type: ignore[no-untyped-def]
    maps, marks, maximum, position, minimum, lowest, sampled, counts,
    images, units, places, part, width, stride_b, stride_u, stride_y, stride_x,
    ONE_STRIDE: tl.constexpr, BOTH: tl.constexpr, SAMPLED: tl.constexpr, COUNTED: tl.constexpr,
    BLOCK_U: tl.constexpr, BLOCK_P: tl.constexpr,
    BUCKETS: tl.constexpr, MIDDLE: tl.constexpr,
):  # fmt: skip
    """Some units of one image's map, of its places those of one part."""
    image, which = tl.program_id(1), tl.program_id(2)
    unit = tl.program_id(0) * BLOCK_U + tl.arange(0, BLOCK_U)
    lane = tl.arange(0, BLOCK_P)
    begin = which * part
    end = tl.minimum(begin + part, places)
    there = unit < units
    base = maps + image.to(tl.int64) * stride_b + unit[None, :] * stride_u
    most = tl.full([BLOCK_P, BLOCK_U], float("-inf"), tl.float32)
    at = tl.zeros([BLOCK_P, BLOCK_U], tl.int32) + (begin + lane)[:, None]
    if BOTH:
        least = tl.full([BLOCK_P, BLOCK_U], float("-inf"), tl.float32)  # of values turned over
        low = tl.zeros([BLOCK_P, BLOCK_U], tl.int32) + (begin + lane)[:, None]
    if COUNTED:
        counted_to = tl.where(tl.load(marks + image) == 0, end, begin)  # nothing of a marked image
        zeros = tl.zeros([BLOCK_P, BLOCK_U], tl.int32)
    for start in range(begin, end, BLOCK_P):
        place = start + lane
        offset = place * stride_x if ONE_STRIDE else (place // width) * stride_y + (place % width) * stride_x
        inside = (place < end)[:, None] & there[None, :]
        raw = tl.load(base + offset[:, None], mask=inside, other=float("-inf"))
        value = raw.to(tl.float32)
        at = tl.where(value > most, place[:, None], at)
        most = tl.maximum(most, value, propagate_nan=tl.PropagateNan.ALL)
        if BOTH:
            turned = tl.where(inside, -value, float("-inf"))
            low = tl.where(turned > least, place[:, None], low)
            least = tl.maximum(least, turned, propagate_nan=tl.PropagateNan.ALL)
        if COUNTED:
            size, sign = bucket_size(value)
            number = inside & (value == value) & (place < counted_to)[:, None]
            zeros += (number & (size == 0)).to(tl.int32)  # most are: counted here, they do not wait for each other
            to = counts + unit[None, :].to(tl.int64) * BUCKETS + ((size ^ sign) - sign + MIDDLE)
            tl.atomic_add(to, 1, mask=number & (size > 0), sem="relaxed")
    row = (which * images + image).to(tl.int64) * units + unit
    most_of_all, at_first = tl.reduce((most, at), 0, larger)
    tl.store(maximum + row, most_of_all, mask=there)
    tl.store(position + row, at_first, mask=there)
    if BOTH:
        least_of_all, low_first = tl.reduce((least, low), 0, larger)
        tl.store(minimum + row, -least_of_all, mask=there)
        tl.store(lowest + row, low_first, mask=there)
    if COUNTED:
        to = counts + unit.to(tl.int64) * BUCKETS + MIDDLE
        tl.atomic_add(to, tl.sum(zeros, 0), mask=there, sem="relaxed")
    if SAMPLED and which == 0:
        drawn = (tl.load(marks + image) % places).to(tl.int32)
        offset = (drawn // width) * stride_y + (drawn % width) * stride_x
        source = maps + image.to(tl.int64) * stride_b + unit * stride_u + offset
        tl.store(sampled + image.to(tl.int64) * units + unit, tl.load(source, mask=there).to(tl.float32), mask=there)


@triton.jit
def _join(parts, places, value_out, place_out, parts_of, entries, SIGN: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """The largest of what several parts of a map gave (SIGN -1: the smallest), the first of equal ones."""
    entry = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = entry < entries
    value = SIGN * tl.load(parts + entry, mask=there)
    place = tl.load(places + entry, mask=there)
    for which in range(1, parts_of):
        other = SIGN * tl.load(parts + which * entries + entry, mask=there)
        elsewhere = tl.load(places + which * entries + entry, mask=there)
        value, place = larger(value, place, other, elsewhere)
    tl.store(value_out + entry, SIGN * value, mask=there)
    tl.store(place_out + entry, place, mask=there)


def sweep(
    maps: Tensor,
    marks: Tensor | None = None,
    both: bool = False,
    sampled: bool = False,
    counted: bool = False,
    blocks: tuple[int, int, int] | None = None,
) -> list[Tensor]:
    """Maximum float32 and its first position int32 `[B, U]` of maps `[B, U, H, W]` of any strides, in one reading.

    With `both` then minimum and its position. `sampled`: then float32 `[B, U]` at the position that `marks` (int64
    `[B]`) modulo H W are. `counted`: then int32 `[U, BUCKETS]`, positions of images without a mark by bucket. `blocks`
    are units and places a program holds and its warps, chosen by the shape if None.
    """
    images, units, height, width = maps.shape
    places = height * width
    stride_b, stride_u, stride_y, stride_x = maps.stride()
    block_u, block_p, warps = blocks or _blocks(units, places, stride_u)
    groups = triton.cdiv(units, block_u)
    part, parts = parts_of(groups * images, places, block_p)
    shape = (parts, images, units)
    found = [_empty(shape, maps, torch.float32), _empty(shape, maps, torch.int32)]
    if both:
        found += [_empty(shape, maps, torch.float32), _empty(shape, maps, torch.int32)]
    beside: list[Tensor] = []
    if sampled:
        beside = [_empty((images, units), maps, torch.float32)]
    elif counted:
        beside = [torch.zeros((units, BUCKETS), dtype=torch.int32, device=maps.device)]
    unused = found[0]
    _sweep[groups, images, parts](
        maps, unused if marks is None else marks, found[0], found[1], *(found[2:] if both else (unused, unused)),
        beside[0] if sampled else unused, beside[0] if counted else unused,
        images, units, places, part, width, stride_b, stride_u, stride_y, stride_x,
        ONE_STRIDE=height == 1 or stride_y == width * stride_x, BOTH=both, SAMPLED=sampled, COUNTED=counted,
        BLOCK_U=block_u, BLOCK_P=block_p, BUCKETS=BUCKETS, MIDDLE=MIDDLE, num_warps=warps,
    )  # fmt: skip
    joined = join(found[0], found[1])
    if both:
        joined += join(found[2], found[3], -1)
    return joined + beside


def parts_of(programs: int, places: int, block: int) -> tuple[int, int]:
    """Places of a part, whole blocks of them, and how many parts there are: a map of few programs is divided."""
    parts = min(triton.cdiv(_PROGRAMS, max(programs, 1)), max(places // _LEAST_PLACES, 1))
    part = triton.cdiv(triton.cdiv(places, parts), block) * block
    return part, triton.cdiv(places, part)


def join(values: Tensor, places: Tensor, sign: int = 1) -> list[Tensor]:
    """The largest value and its first place `[B, U]` of those of all parts `[P, B, U]`; the smallest with `sign` -1."""
    if len(values) == 1:
        return [values[0], places[0]]
    value, place = torch.empty_like(values[0]), torch.empty_like(places[0])
    entries = value.numel()
    _join[(triton.cdiv(entries, 512),)](values, places, value, place, len(values), entries, SIGN=sign, BLOCK=512)
    return [value, place]


def _empty(shape: tuple[int, ...], like: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=like.device)


def _blocks(units: int, places: int, stride_u: int) -> tuple[int, int, int]:
    """Units and places of a program and its warps: what lies side by side in memory is read side by side."""
    if stride_u == 1:
        return min(64, _power(units)), min(32, _power(places)), 4
    block_p = min(256, _power(places))
    return min(max(4096 // block_p, 1), _power(units)), block_p, 4


def _power(number: int) -> int:
    return int(triton.next_power_of_2(number))
