"""What follows a convolution or linear map, and its taps, in one reading: normalize, add, activate, find the maxima."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from actmine.pipeline.readings.tap_kernel import join, larger, parts_of

ACTIVATIONS = ("none", "relu", "relu6", "gelu")


@triton.jit
def _rounded(value, like):  # type: ignore[no-untyped-def]
    """As a tensor of that type would hold it."""
    return value.to(like.dtype).to(tl.float32)


@triton.jit
def _further(value, place, most, at, inside):  # type: ignore[no-untyped-def]
    """The larger ones so far, with their places."""
    value = tl.where(inside, value, float("-inf"))
    return tl.maximum(most, value, propagate_nan=tl.PropagateNan.ALL), tl.where(value > most, place[:, None], at)


@triton.jit
def _stored(most, at, maximum, position, row, there):  # type: ignore[no-untyped-def]
    """The largest of all places, the first of equal ones."""
    value, place = tl.reduce((most, at), 0, larger)
    tl.store(maximum + row, value, mask=there)
    tl.store(position + row, place, mask=there)


@triton.jit
def _chain(  # type: ignore[no-untyped-def]
    left, left_scale, left_shift, right, right_scale, right_shift, out, maximum, position,
    images, units, places, part, tap_entries,
    LEFT_NORM: tl.constexpr, RIGHT: tl.constexpr, RIGHT_NORM: tl.constexpr, ACTIVATION: tl.constexpr,
    TAP_LEFT: tl.constexpr, TAP_RIGHT: tl.constexpr, TAP_SUM: tl.constexpr, TAP_OUT: tl.constexpr,
    BLOCK_U: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """Some units of one image, of its places those of one part; units lie side by side in memory."""
    image, which = tl.program_id(1), tl.program_id(2)
    unit = tl.program_id(0) * BLOCK_U + tl.arange(0, BLOCK_U)
    lane = tl.arange(0, BLOCK_P)
    begin = which * part
    end = tl.minimum(begin + part, places)
    there = unit < units
    first = image.to(tl.int64) * places * units + unit[None, :]
    none = tl.full([BLOCK_P, BLOCK_U], float("-inf"), tl.float32)
    start_at = tl.zeros([BLOCK_P, BLOCK_U], tl.int32) + (begin + lane)[:, None]
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
    for start in range(begin, end, BLOCK_P):
        place = start + lane
        inside = (place < end)[:, None] & there[None, :]
        at = first + place[:, None] * units
        raw = tl.load(left + at, mask=inside, other=0.0)
        value = raw.to(tl.float32)
        if LEFT_NORM:
            value = _rounded(value * left_by + left_to, raw)
        if TAP_LEFT:
            most_left, at_left = _further(value, place, most_left, at_left, inside)
        if RIGHT:
            other = tl.load(right + at, mask=inside, other=0.0).to(tl.float32)
            if RIGHT_NORM:
                other = _rounded(other * right_by + right_to, raw)
            if TAP_RIGHT:
                most_right, at_right = _further(other, place, most_right, at_right, inside)
            value = _rounded(value + other, raw)
            if TAP_SUM:
                most_sum, at_sum = _further(value, place, most_sum, at_sum, inside)
        if ACTIVATION == "relu":
            value = tl.maximum(value, 0.0, propagate_nan=tl.PropagateNan.ALL)
        if ACTIVATION == "relu6":
            value = tl.minimum(
                tl.maximum(value, 0.0, propagate_nan=tl.PropagateNan.ALL), 6.0, propagate_nan=tl.PropagateNan.ALL
            )
        if ACTIVATION == "gelu":
            value = _rounded(value * 0.5 * (1.0 + tl.math.erf(value * 0.7071067811865476)), raw)
        if TAP_OUT:
            most_out, at_out = _further(value, place, most_out, at_out, inside)
        tl.store(out + at, value.to(raw.dtype), mask=inside)
    row = (which * images + image).to(tl.int64) * units + unit
    if TAP_LEFT:
        _stored(most_left, at_left, maximum, position, row, there)
        row += tap_entries
    if TAP_RIGHT:
        _stored(most_right, at_right, maximum, position, row, there)
        row += tap_entries
    if TAP_SUM:
        _stored(most_sum, at_sum, maximum, position, row, there)
        row += tap_entries
    if TAP_OUT:
        _stored(most_out, at_out, maximum, position, row, there)


def chain(
    left: Tensor,
    left_norm: tuple[Tensor, Tensor] | None,
    right: Tensor | None,
    right_norm: tuple[Tensor, Tensor] | None,
    activation: str,
    taps: Sequence[bool],
    out: Tensor,
) -> list[Tensor]:
    """Writes activation(norm(left) + norm(right)) to `out`; maximum and first position `[B, U]` of each of `taps`.

    `left`, `right` and `out` are `[B, P, U]`, contiguous; a norm is its scale and shift, float32 `[U]`. `taps` says
    which of the four there are: of both sides, of their sum, of what is written. Every step is rounded as a tensor is.
    """
    images, places, units = left.shape
    block_u = min(64, triton.next_power_of_2(units))
    block_p = min(32 if sum(taps) > 1 else 64, triton.next_power_of_2(places))
    groups = triton.cdiv(units, block_u)
    part, parts = parts_of(groups * images, places, block_p)
    entries = parts * images * units
    shape = (sum(taps), parts, images, units)
    maximum = torch.empty(shape, dtype=torch.float32, device=left.device)
    position = torch.empty(shape, dtype=torch.int32, device=left.device)
    norms = [each for norm in (left_norm, right_norm) for each in (norm or (left, left))]
    _chain[groups, images, parts](
        left, norms[0], norms[1], left if right is None else right, norms[2], norms[3], out, maximum, position,
        images, units, places, part, entries,
        LEFT_NORM=left_norm is not None, RIGHT=right is not None, RIGHT_NORM=right_norm is not None,
        ACTIVATION=activation, TAP_LEFT=taps[0], TAP_RIGHT=taps[1], TAP_SUM=taps[2], TAP_OUT=taps[3],
        BLOCK_U=block_u, BLOCK_P=block_p, num_warps=4,
    )  # fmt: skip
    return [each for tap in range(sum(taps)) for each in join(maximum[tap], position[tap])]
