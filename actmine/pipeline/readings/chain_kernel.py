"""What follows a convolution or linear map, and its taps, in one reading: normalize, add, activate, find the maxima."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from actmine.pipeline.readings.tap_kernel import Tile, adjacent, further, join, loaded, parts_of, stored

ACTIVATIONS = ("none", "relu", "relu6", "gelu")


@triton.jit
def _rounded(value, like):  # type: ignore[no-untyped-def]
    """As a tensor of that type would hold it."""
    return value.to(like.dtype).to(tl.float32)


@triton.jit
def _normal_share(value):  # type: ignore[no-untyped-def]
    """The standard normal distribution up to a value, within 2e-7: a polynomial of its square, fitted to [-5.2, 5.2].

    `erf` of CUDA's library takes twice as many instructions, and would take longer than the memory.
    """
    square = tl.minimum(value * value, 27.04)
    along = tl.fma(square, 0.07396449704142012, -1.0)
    found = tl.full(value.shape, -0.00048127357149496675, tl.float32)
    found = tl.fma(found, along, 0.00126850965898484)
    found = tl.fma(found, along, -0.0012215046444907784)
    found = tl.fma(found, along, 0.0018001266289502382)
    found = tl.fma(found, along, -0.004789025988429785)
    found = tl.fma(found, along, 0.008559963665902615)
    found = tl.fma(found, along, -0.012505128048360348)
    found = tl.fma(found, along, 0.017954789102077484)
    found = tl.fma(found, along, -0.024723628535866737)
    found = tl.fma(found, along, 0.03198995813727379)
    found = tl.fma(found, along, -0.039929818361997604)
    found = tl.fma(found, along, 0.050024520605802536)
    found = tl.fma(found, along, -0.06774366647005081)
    found = tl.fma(found, along, 0.1359499990940094)
    return tl.minimum(tl.maximum(tl.fma(value, found, 0.5), 0.0), 1.0)


@triton.jit
def _chain(  # type: ignore[no-untyped-def]
    left, left_scale, left_shift, right, right_scale, right_shift, out,
    left_maximum, left_position, right_maximum, right_position, sum_maximum, sum_position, out_maximum, out_position,
    images, units, places, part,
    LEFT_NORM: tl.constexpr, RIGHT: tl.constexpr, RIGHT_NORM: tl.constexpr, ACTIVATION: tl.constexpr,
    TAP_LEFT: tl.constexpr, TAP_RIGHT: tl.constexpr, TAP_SUM: tl.constexpr, TAP_OUT: tl.constexpr,
    R: tl.constexpr, W: tl.constexpr, U: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """Some units of one image, of its places those of one part; units lie side by side in memory.

    Behind the last place comes the last one again. `WHOLE`: they are U units everywhere.
    """
    image, which = tl.program_id(1), tl.program_id(2)
    unit = tl.program_id(0) * U + tl.arange(0, U)
    lane = tl.arange(0, W)[:, None]
    begin = which * part
    end = tl.minimum(begin + part, places)
    there = unit < units
    first = image.to(tl.int64) * places * units + unit[None, :]
    none = tl.full([W, U], float("-inf"), tl.float32)
    start_at = tl.zeros([W, U], tl.int32) + tl.minimum(begin + lane, end - 1)
    most_left, at_left = none, start_at
    most_right, at_right = none, start_at
    most_sum, at_sum = none, start_at
    most_out, at_out = none, start_at
    if LEFT_NORM:
        left_by = tl.load(left_scale + unit, mask=there, other=0.0)[None, :]
        left_to = tl.load(left_shift + unit, mask=there, other=0.0)[None, :]
    if RIGHT_NORM:
        right_by = tl.load(right_scale + unit, mask=there, other=0.0)[None, :]
        right_to = tl.load(right_shift + unit, mask=there, other=0.0)[None, :]
    for start in range(begin, end, R * W):
        lefts, rights = (), ()
        for row in tl.static_range(R):  # all on their way before the first is looked at
            at = first + tl.minimum(start + row * W + lane, end - 1) * units
            lefts = lefts + (loaded(left, at, there, WHOLE),)  # noqa: RUF005
            if RIGHT:
                rights = rights + (loaded(right, at, there, WHOLE),)  # noqa: RUF005
        for row in tl.static_range(R):
            place = tl.minimum(start + row * W + lane, end - 1)
            raw = lefts[row]
            value = raw.to(tl.float32)
            if LEFT_NORM:
                value = _rounded(tl.fma(value, left_by, left_to), raw)
            if TAP_LEFT:
                most_left, at_left = further(value, place, most_left, at_left)
            if RIGHT:
                other = rights[row].to(tl.float32)
                if RIGHT_NORM:
                    other = _rounded(tl.fma(other, right_by, right_to), raw)
                if TAP_RIGHT:
                    most_right, at_right = further(other, place, most_right, at_right)
                value = _rounded(value + other, raw)
                if TAP_SUM:
                    most_sum, at_sum = further(value, place, most_sum, at_sum)
            if ACTIVATION == "relu":
                value = tl.maximum(value, 0.0, propagate_nan=tl.PropagateNan.ALL)
            if ACTIVATION == "relu6":
                value = tl.minimum(
                    tl.maximum(value, 0.0, propagate_nan=tl.PropagateNan.ALL), 6.0, propagate_nan=tl.PropagateNan.ALL
                )
            if ACTIVATION == "gelu":
                value = _rounded(value * _normal_share(value), raw)
            if TAP_OUT:
                most_out, at_out = further(value, place, most_out, at_out)
            inside = (start + row * W + lane < end) & there[None, :]
            tl.store(out + first + place * units, value.to(raw.dtype), mask=inside)
    to = (which * images + image).to(tl.int64) * units + unit
    if TAP_LEFT:
        stored(most_left, at_left, left_maximum, left_position, to, there, 1)
    if TAP_RIGHT:
        stored(most_right, at_right, right_maximum, right_position, to, there, 1)
    if TAP_SUM:
        stored(most_sum, at_sum, sum_maximum, sum_position, to, there, 1)
    if TAP_OUT:
        stored(most_out, at_out, out_maximum, out_position, to, there, 1)


def chain(
    left: Tensor,
    left_norm: tuple[Tensor, Tensor] | None,
    right: Tensor | None,
    right_norm: tuple[Tensor, Tensor] | None,
    activation: str,
    taps: Sequence[bool],
    out: Tensor,
    tile: Tile | None = None,
) -> list[Tensor]:
    """Writes activation(norm(left) + norm(right)) to `out`; maximum and first position `[B, U]` of each of `taps`.

    `left`, `right` and `out` are `[B, P, U]`, contiguous; a norm is its scale and shift, float32 `[U]`. `taps` says
    which of the four there are: of both sides, of their sum, of what is written. Every step is rounded as a tensor is.
    `tile` is chosen by the shape if None.
    """
    images, places, units = left.shape
    tile = tile or adjacent(images, units, places, left.itemsize, rows=4 if sum(taps) < 3 else 1)
    groups = triton.cdiv(units, tile.units)
    part, parts = parts_of(groups * images, places, tile)
    found: list[Tensor] = []
    for tap in taps:
        for kind in (torch.float32, torch.int32) if tap else ():
            found.append(torch.empty((parts, images, units), dtype=kind, device=left.device))
    into = iter(found)
    readings = [next(into) if tap else out for tap in taps for _ in range(2)]
    norms = [each for norm in (left_norm, right_norm) for each in (norm or (left, left))]
    _chain[groups, images, parts](
        left, norms[0], norms[1], left if right is None else right, norms[2], norms[3], out, *readings,
        images, units, places, part,
        LEFT_NORM=left_norm is not None, RIGHT=right is not None, RIGHT_NORM=right_norm is not None,
        ACTIVATION=activation, TAP_LEFT=taps[0], TAP_RIGHT=taps[1], TAP_SUM=taps[2], TAP_OUT=taps[3],
        R=tile.rows, W=tile.across, U=tile.units, WHOLE=units % tile.units == 0, num_warps=tile.warps,
    )  # fmt: skip
    return [each for n in range(0, len(found), 2) for each in join(found[n], found[n + 1])]
