"""A layer's map read once on a GPU: maximum and first position of each unit, on request minimum, one position, counts.

Nothing but Triton kernels and how they are launched; `tap_operator` is what everything else calls. Triton's interpreter
runs the same on a CPU, where tests compare it with `reductions.read_map`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from actmine.pipeline.readings.bucket_edges import BUCKETS, MIDDLE
from actmine.pipeline.readings.unit_kernels import bucket_size

_PROGRAMS = 1024
"""As many keep all multiprocessors of a large GPU at work; maps of few units are divided among several for it."""
_LEAST_PLACES = 512  # of a part of a divided map
_MOST_WARPS = 8  # of a program
_WARPS = 4096
"""As many hide from each other that memory is far away."""


@dataclass(frozen=True, slots=True)
class Tile:
    """What a program holds at a time: `units` at `rows` times `across` places, of which a thread has all rows."""

    units: int
    across: int
    rows: int
    warps: int


@triton.jit
def larger(value, place, other, elsewhere):  # type: ignore[no-untyped-def]
    """The larger of two values with its place, the first of equal ones; NaN is larger than all."""
    first = (value > other) | ((value == other) & (place < elsewhere)) | (value != value)
    return tl.where(first, value, other), tl.where(first, place, elsewhere)


@triton.jit
def further(value, place, most, at):  # type: ignore[no-untyped-def]
    """The largest so far `[W, U]` with its place, after one more `[W, U]` at later places `[W, 1]`."""
    return tl.maximum(most, value, propagate_nan=tl.PropagateNan.ALL), tl.where(value > most, place, at)


@triton.jit
def loaded(maps, offset, there, WHOLE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Values `[W, U]`; anything of units that are not there."""
    if WHOLE:
        return tl.load(maps + offset)
    return tl.load(maps + offset, mask=there[None, :], other=0.0)


@triton.jit
def stored(most, at, maximum, position, to, there, SIGN: tl.constexpr):  # type: ignore[no-untyped-def]
    """Writes the largest of all `[W, U]`, times a sign, and the first place that has it."""
    value, place = tl.reduce((most, at), 0, larger)
    tl.store(maximum + to, SIGN * value, mask=there)
    tl.store(position + to, place, mask=there)


@triton.jit
def _sweep(  # type: ignore[no-untyped-def]
    maps, marks, maximum, position, minimum, lowest, sampled, counts,
    images, units, places, part, width, stride_b, stride_u, stride_y, stride_x,
    ONE_STRIDE: tl.constexpr, BOTH: tl.constexpr, SAMPLED: tl.constexpr, COUNTED: tl.constexpr,
    R: tl.constexpr, W: tl.constexpr, U: tl.constexpr, WHOLE: tl.constexpr,
    BUCKETS: tl.constexpr, MIDDLE: tl.constexpr,
):  # fmt: skip
    """Some units of one image's map, of its places those of one part; `WHOLE`: they are U units everywhere.

    Behind the last place comes the last one again, which changes nothing but counts.
    """
    image, which = tl.program_id(1), tl.program_id(2)
    unit = tl.program_id(0) * U + tl.arange(0, U)
    lane = tl.arange(0, W)[:, None]
    begin = which * part
    end = tl.minimum(begin + part, places)
    there = unit < units
    base = maps + image.to(tl.int64) * stride_b
    most = tl.full([W, U], float("-inf"), tl.float32)
    at = tl.zeros([W, U], tl.int32) + tl.minimum(begin + lane, end - 1)
    if BOTH:
        least, low = most, at  # of values turned over
    if COUNTED:
        counted_to = tl.where(tl.load(marks + image) == 0, end, begin)  # nothing of a marked image
        zeros = tl.zeros([W, U], tl.int32)
    for start in range(begin, end, R * W):
        raw = ()
        for row in tl.static_range(R):  # all on their way before the first is looked at
            place = tl.minimum(start + row * W + lane, end - 1)
            offset = place * stride_x if ONE_STRIDE else (place // width) * stride_y + (place % width) * stride_x
            raw = raw + (loaded(base, offset + (unit * stride_u)[None, :], there, WHOLE),)  # noqa: RUF005
        for row in tl.static_range(R):
            value = raw[row].to(tl.float32)
            place = tl.minimum(start + row * W + lane, end - 1)
            most, at = further(value, place, most, at)
            if BOTH:
                least, low = further(-value, place, least, low)
            if COUNTED:
                size, sign = bucket_size(value)
                number = there[None, :] & (value == value) & (start + row * W + lane < counted_to)
                zeros += (number & (size == 0)).to(tl.int32)  # most are: counted here, they do not wait for each other
                to = counts + unit[None, :].to(tl.int64) * BUCKETS + ((size ^ sign) - sign + MIDDLE)
                tl.atomic_add(to, 1, mask=number & (size > 0), sem="relaxed")
    to = (which * images + image).to(tl.int64) * units + unit
    stored(most, at, maximum, position, to, there, 1)
    if BOTH:
        stored(least, low, minimum, lowest, to, there, -1)
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
    tile: Tile | None = None,
) -> list[Tensor]:
    """Maximum float32 and its first position int32 `[B, U]` of maps `[B, U, H, W]` of any strides, in one reading.

    With `both` then minimum and its position. `sampled`: then float32 `[B, U]` at the position that `marks` (int64
    `[B]`) modulo H W are. `counted`: then int32 `[U, BUCKETS]`, positions of images without a mark by bucket. `tile` is
    chosen by the shape if None.
    """
    images, units, height, width = maps.shape
    places = height * width
    stride_b, stride_u, stride_y, stride_x = maps.stride()
    tile = tile or (adjacent(images, units, places, maps.itemsize) if stride_u == 1 else _apart(units, places))
    groups = triton.cdiv(units, tile.units)
    part, parts = parts_of(groups * images, places, tile)
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
        R=tile.rows, W=tile.across, U=tile.units, WHOLE=units % tile.units == 0,
        BUCKETS=BUCKETS, MIDDLE=MIDDLE, num_warps=tile.warps,
    )  # fmt: skip
    joined = join(found[0], found[1])
    if both:
        joined += join(found[2], found[3], -1)
    return joined + beside


def parts_of(programs: int, places: int, tile: Tile) -> tuple[int, int]:
    """Places of a part, whole tiles of them, and how many parts there are: a map of few programs is divided."""
    parts = min(triton.cdiv(_PROGRAMS, max(programs, 1)), max(places // _LEAST_PLACES, 1))
    together = tile.rows * tile.across
    part = triton.cdiv(triton.cdiv(places, parts), together) * together
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


def adjacent(images: int, units: int, places: int, itemsize: int, rows: int = 4) -> Tile:
    """For units that lie side by side in memory: a thread loads 16 bytes of them at a time, a warp as many as it can.

    So the largest of all places is mostly a matter of one thread, and of few where units or images are few.
    """
    vector = 16 // itemsize
    block = min(32 * vector, _power(units))
    threads = max(block // vector, 1)  # beside each other
    programs = images * triton.cdiv(units, block)
    warps = min(max(_power(triton.cdiv(_WARPS, programs)), 1), _MOST_WARPS)
    across = min(max(32 * warps // threads, 1), _power(places))
    return Tile(block, across, min(rows, _power(triton.cdiv(places, across))), max(threads * across // 32, 1))


def _apart(units: int, places: int) -> Tile:
    """For places that lie side by side: few threads share a unit, or all of its places are taken at once."""
    if places > 64:
        return Tile(min(32, _power(units)), 32, 4, 4)
    across = _power(places)
    return Tile(min(4096 // across, _power(units)), across, 1, 4)


def _power(number: int) -> int:
    return int(triton.next_power_of_2(number))
