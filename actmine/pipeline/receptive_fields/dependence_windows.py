"""What convolutions and poolings see: unions over windows, padding and ceil_mode included."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from actmine.pipeline.receptive_fields.dependence_call import Call
from actmine.pipeline.receptive_fields.dependence_shadow import (
    NOTHING,
    Ideal,
    Planes,
    Shadow,
    joined,
    line,
    moved,
    united,
)


@dataclass(frozen=True, slots=True)
class Window:
    """How a window slides along one dimension to make `outputs` elements."""

    dim: int
    outputs: int
    kernel: int
    stride: int
    padding: int
    dilation: int = 1


def convolution(call: Call) -> Shadow:
    """Every output sees a window of all channels of its group, and its weights where those come from the image."""
    given, output = call.given, call.result
    rank, groups = output.dim(), given["groups"]
    seen = []
    if (source := call.shadow("input")) is not None:
        grouped = _over_groups(source, groups)
        windows = [_convolved(given, output, dim) for dim in range(2, rank)]
        if given["transposed"]:
            grouped = _stretched(grouped, given["stride"])
        slid = slide(grouped, windows, known=not given["transposed"] or set(given["stride"]) == {1})
        share = output.shape[1] // groups
        seen.append(moved(slid, lambda plane, _: _repeated(plane, share)))
    if (weight := call.shadow("weight")) is not None:
        dims = (0, *range(2, rank)) if given["transposed"] else range(1, rank)
        units = joined(weight, dims)
        if given["transposed"]:
            units = moved(units, lambda plane, _: plane.transpose(0, 1).repeat(groups, *[1] * (rank - 1)))
        seen.append(moved(units, lambda plane, _: plane.transpose(0, 1)))
    if (bias := call.shadow("bias")) is not None:
        seen.append(moved(bias, lambda plane, _: plane.reshape(1, -1, *[1] * (rank - 2))))
    return united(seen, output.shape)


def pooling(call: Call) -> Shadow:
    """Every output sees its window."""
    source, output = call.shadow("self"), call.outputs[0]
    assert source is not None
    count = _pooled_dims(call)
    kernel = _times(call.given["kernel_size"], count)
    stride = _times(call.given["stride"] or kernel, count)
    padding, dilation = _times(call.given["padding"], count), _times(call.given.get("dilation", 1), count)
    first = output.dim() - count
    windows = [
        Window(first + i, output.shape[first + i], kernel[i], stride[i], padding[i], dilation[i]) for i in range(count)
    ]
    return slide(source, windows)


def adaptive_pooling(call: Call) -> Shadow:
    """Output i of m sees elements floor(i n / m) to ceil((i + 1) n / m) of n."""
    source, output = call.shadow("self"), call.outputs[0]
    assert source is not None
    for dim in range(output.dim() - _pooled_dims(call), output.dim()):
        length, outputs = source.shape[dim], output.shape[dim]
        if length % outputs == 0:
            source = slide(source, [Window(dim, outputs, length // outputs, length // outputs, 0)])
        else:
            source = _binned(source, dim, length, outputs)
    return source


def slide(shadow: Shadow, windows: Sequence[Window], known: bool = True) -> Shadow:
    """The shadow after windows have slid along some dimensions; its ideal fields are dropped unless `known`."""

    def side(plane: Tensor) -> Tensor:
        return functools.reduce(_slide_plane, windows, plane)

    top, bottom, left, right = (side(plane) for plane in shadow.planes)
    planes: Planes = (top, bottom, left, right)
    rows, columns = (_slide_ideal(shadow, axis, windows, planes[0].shape) if known else None for axis in (0, 1))
    return Shadow(planes, (rows, columns), None, shadow.note)


def _convolved(given: Mapping[str, Any], output: Tensor, dim: int) -> Window:
    kernel = given["weight"].shape[dim]
    stride, padding, dilation = (
        _times(given[name], output.dim() - 2)[dim - 2] for name in ("stride", "padding", "dilation")
    )
    if given["transposed"]:
        return Window(dim, output.shape[dim], kernel, 1, dilation * (kernel - 1) - padding, dilation)
    return Window(dim, output.shape[dim], kernel, stride, padding, dilation)


def _pooled_dims(call: Call) -> int:
    return next(count for count in (1, 2, 3) if f"{count}d" in call.name)


def _times(value: int | Sequence[int], count: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * count if len(values) == 1 else values


def _over_groups(shadow: Shadow, groups: int) -> Shadow:
    """All channels of a group together: `[N, C, …]` to `[N, groups, …]`."""
    channels = shadow.shape[1]
    if groups == 1:
        return joined(shadow, [1])
    if groups == channels:
        return replace(shadow, masked=None)
    split = moved(shadow, lambda plane, _: plane.unflatten(1, (groups, channels // groups)))
    return joined(split, [2], keep=False)


def _repeated(plane: Tensor, share: int) -> Tensor:
    groups = plane.shape[1]
    if groups == 1 or plane.stride(1) == 0:
        return plane.narrow(1, 0, 1).expand(plane.shape[0], groups * share, *plane.shape[2:])
    return plane.repeat_interleave(share, 1)


def _stretched(shadow: Shadow, stride: Sequence[int]) -> Shadow:
    """What a transposed convolution slides over: its input with gaps that see nothing."""

    def stretch(plane: Tensor, nothing: float) -> Tensor:
        for dim, step in enumerate(_times(stride, plane.dim() - 2), 2):
            if step == 1:
                continue
            shape = list(plane.shape)
            shape[dim] = (shape[dim] - 1) * step + 1
            wide = plane.new_full(shape, nothing)
            wide[(slice(None),) * dim + (slice(None, None, step),)] = plane
            plane = wide
        return plane

    return moved(shadow, stretch)


def _slide_plane(plane: Tensor, window: Window) -> Tensor:
    dim, length = window.dim, plane.shape[window.dim]
    shape = [*plane.shape[:dim], window.outputs, *plane.shape[dim + 1 :]]
    small = plane
    for other, size in enumerate(plane.shape):
        if other != dim and size > 1 and plane.stride(other) == 0:
            small = small.narrow(other, 0, 1)
    reach = (window.outputs - 1) * window.stride + (window.kernel - 1) * window.dilation + 1
    if window.outputs == 1 and window.padding <= 0 and window.dilation == 1:
        begin = -window.padding
        return small.narrow(dim, begin, min(window.kernel, length - begin)).amin(dim, keepdim=True).expand(shape)
    borders = [0, 0] * (plane.dim() - 1 - dim) + [window.padding, reach - window.padding - length]
    padded = functional.pad(small, borders, value=NOTHING)
    span = (window.outputs - 1) * window.stride + 1
    taps = (
        padded.narrow(dim, tap * window.dilation, span)[(slice(None),) * dim + (slice(None, None, window.stride),)]
        for tap in range(window.kernel)
    )
    return functools.reduce(torch.minimum, taps).expand(shape)


def _slide_ideal(shadow: Shadow, axis: int, windows: Sequence[Window], shape: Sequence[int]) -> Ideal | None:
    ideal = shadow.ideal[axis]
    if ideal is None or ideal.where is None or ideal.stride is None:
        return ideal
    dims = [window.dim for window in windows]
    found = line(ideal.where, range(len(shape)))
    if found is None:
        return None
    dim, begin, step = found
    if dim is None:  # one position: its dimension is where maps have it
        dim = len(shape) - 2 + axis
    if dim not in dims:
        where = ideal.where
        for other in dims:
            where = where.narrow(other, 0, 1)
        return replace(ideal, where=where.expand(tuple(shape)))
    window = windows[dims.index(dim)]
    reach = (window.kernel - 1) * window.dilation * step
    where = torch.arange(window.outputs, dtype=torch.float32, device=ideal.where.device)
    return Ideal(
        ideal.start + (begin - window.padding * step + min(reach, 0)) * ideal.stride,
        ideal.stride * step * window.stride,
        ideal.size + abs(reach) * ideal.stride,
        where.reshape([-1 if other == dim else 1 for other in range(len(shape))]).expand(tuple(shape)),
    )


def _binned(shadow: Shadow, dim: int, length: int, outputs: int) -> Shadow:
    bins = [(i * length // outputs, -(-(i + 1) * length // outputs)) for i in range(outputs)]
    parts = [
        joined(moved(shadow, lambda plane, _, b=begin, e=end: plane.narrow(dim, b, e - b)), [dim])  # type: ignore[misc]
        for begin, end in bins
    ]
    sides = [torch.cat([part.planes[side] for part in parts], dim) for side in range(4)]
    widest = max(end - begin for begin, end in bins)

    def loosened(ideal: Ideal | None) -> Ideal | None:
        if ideal is None or ideal.where is None or ideal.stride is None:
            return ideal
        found = line(ideal.where, [dim])
        if found is None:
            return None if line(ideal.where, range(ideal.where.dim())) is None else _narrowed(ideal, dim, outputs)
        return Ideal(ideal.start, None, ideal.size + (widest - 1) * abs(ideal.stride * found[2]), None)

    rows, columns = (loosened(each) for each in shadow.ideal)
    return Shadow((sides[0], sides[1], sides[2], sides[3]), (rows, columns), None, shadow.note)


def _narrowed(ideal: Ideal, dim: int, outputs: int) -> Ideal:
    assert ideal.where is not None
    shape = [*ideal.where.shape[:dim], outputs, *ideal.where.shape[dim + 1 :]]
    return replace(ideal, where=ideal.where.narrow(dim, 0, 1).expand(shape))
