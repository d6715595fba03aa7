"""What every element of a tensor can see of an image, and the arithmetic of it: unions, windows' borders, ideal fields.

A *shadow* has planes of the tensor's shape, one for each side of a box: an element depends on input rows `top` to
`bottom` and columns `left` to `right`. Bottom and right are kept negative, so that every union is a minimum and
infinity means that nothing is seen. Dimensions along which all elements see the same have a stride of 0 and cost
nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Planes = tuple[Tensor, Tensor, Tensor, Tensor]
"""Top, minus bottom, left, minus right (pixels) for each element: float32, all of the tensor's shape."""

NOTHING = torch.inf


@dataclass(frozen=True, slots=True)
class Ideal:
    """The field along one axis of the image as if that had no borders (Araujo, Norris, Sim, Distill 2019).

    `where` numbers the position of each element, infinite for padding: position i sees `size` pixels from
    `start + i * stride`. A `stride` of None: the size is known, but no order of positions.
    """

    start: int
    stride: int | None
    size: int
    where: Tensor | None


@dataclass(frozen=True, slots=True)
class Shadow:
    """What each element of one tensor sees; `ideal` for rows and columns, None where that cannot be told.

    `masked` marks scores that attention leaves out. `note` says what could not be followed on the way.
    """

    planes: Planes
    ideal: tuple[Ideal | None, Ideal | None]
    masked: Tensor | None = None
    note: str | None = None

    @property
    def shape(self) -> torch.Size:
        """That of the tensor."""
        return self.planes[0].shape


def image_shadow(images: Tensor) -> Shadow:
    """The shadow of the network's input `[1, C, H, W]`: every pixel sees itself."""
    shape, device = images.shape, images.device
    rows = torch.arange(shape[2], dtype=torch.float32, device=device)[:, None].expand(shape)
    columns = torch.arange(shape[3], dtype=torch.float32, device=device).expand(shape)
    planes = (rows, (-rows[:1, :1, :, :1] - 1).expand(shape), columns, (-columns[:1, :1, :1] - 1).expand(shape))
    return Shadow(planes, (Ideal(0, 1, 1, rows), Ideal(0, 1, 1, columns)))


def whole_shadow(shape: Sequence[int], height: int, width: int, device: torch.device, note: str | None) -> Shadow:
    """Every element sees all of an image of `height` x `width` pixels."""
    sides = (torch.tensor(float(side), device=device).expand(tuple(shape)) for side in (0, -height, 0, -width))
    top, bottom, left, right = sides
    return Shadow((top, bottom, left, right), (Ideal(0, None, height, None), Ideal(0, None, width, None)), None, note)


def blank_shadow(shape: Sequence[int], device: torch.device) -> Shadow:
    """Every element is a constant and sees nothing."""
    plane = torch.tensor(NOTHING, device=device).expand(tuple(shape))
    return Shadow((plane,) * 4, (None, None))


def moved(shadow: Shadow, move: Callable[[Tensor, float], Tensor]) -> Shadow:
    """The shadow after elements have moved; `move` gets each plane and what it is to put where nothing comes from."""

    def plane(each: Tensor) -> Tensor:
        return compact(move(each, NOTHING))

    masked = shadow.masked
    if masked is not None:
        masked = move(masked.float(), 0.0) > 0
    return Shadow(_each(plane, shadow.planes), _each_ideal(plane, shadow.ideal), masked, shadow.note)


def spread(shadow: Shadow, shape: Sequence[int]) -> Shadow:
    """The shadow broadcast to `shape`."""
    return moved(shadow, lambda plane, _: plane.expand(tuple(shape)))


def united(shadows: Sequence[Shadow], shape: Sequence[int]) -> Shadow:
    """Element by element what any of `shadows`, broadcast to `shape`, sees."""
    shape = tuple(shape)
    first = shadows[0]
    if all(each is first for each in shadows) and first.shape == shape:
        return replace(first, masked=None)
    sides = [least([each.planes[side] for each in shadows], shape) for side in range(4)]
    ideal = [functools.reduce(_both(shape), [each.ideal[axis] for each in shadows]) for axis in (0, 1)]
    return Shadow((sides[0], sides[1], sides[2], sides[3]), (ideal[0], ideal[1]), None, first_note(shadows))


def joined(shadow: Shadow, dims: Iterable[int], keep: bool = True) -> Shadow:
    """What all elements along `dims` see together: of size 1 there, or gone unless `keep`."""
    rank = len(shadow.shape)
    gone = sorted({dim % rank for dim in dims}) if rank else []
    planes = _each(lambda plane: least_along(plane, gone), shadow.planes)
    ideal = (_joined_ideal(shadow.ideal[0], gone), _joined_ideal(shadow.ideal[1], gone))
    result = Shadow(planes, ideal, None, shadow.note)
    return result if keep or not gone else moved(result, lambda plane, _: plane.squeeze(gone))


def first_note(shadows: Iterable[Shadow]) -> str | None:
    """The first note of any of `shadows`."""
    return next((each.note for each in shadows if each.note), None)


def least(planes: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    """The minimum of planes broadcast to `shape`, computed once where all are the same along a dimension."""
    wide = [plane.expand(shape) for plane in {id(plane): plane for plane in planes}.values()]
    if len(wide) == 1:
        return wide[0]
    narrow = [_narrow(plane, [dim for dim in range(len(shape)) if not _varies(wide, dim)]) for plane in wide]
    return functools.reduce(torch.minimum, narrow).expand(shape)


def least_along(plane: Tensor, dims: Sequence[int]) -> Tensor:
    """The minimum along `dims`, of size 1 there; nothing of no elements, such as boxes that no detector found."""
    if any(plane.shape[dim] == 0 for dim in dims):
        shape = [1 if dim in dims else size for dim, size in enumerate(plane.shape)]
        return plane.new_tensor(NOTHING).expand(shape)
    small = _narrow(plane, [dim for dim in range(plane.dim()) if not _varies([plane], dim)])
    real = [dim for dim in dims if small.shape[dim] > 1]
    if real:
        small = small.amin(real, keepdim=True)
    return small.expand([1 if dim in dims else size for dim, size in enumerate(plane.shape)])


def compact(plane: Tensor) -> Tensor:
    """The same plane with a stride of 0 along every dimension where all elements are alike."""
    if plane.numel() == 0:
        return plane
    small = plane
    for dim, size in enumerate(plane.shape):
        if size == 1:
            continue
        if small.stride(dim) != 0:
            first, last = small.narrow(dim, 0, 1), small.narrow(dim, size - 1, 1)
            if not torch.equal(first, last) or not bool((small == first).all()):
                continue
        small = small.narrow(dim, 0, 1)
    return small.expand(plane.shape)


def line(where: Tensor, dims: Sequence[int]) -> tuple[int | None, int, int] | None:
    """Along which one of `dims` positions follow each other, the position at its begin, and the step between two.

    The dimension is None where there is but one position. None if it is not so simple.
    """
    where = compact(where)
    varying = [dim for dim in range(where.dim()) if _varies([where], dim)]
    if not varying:
        only = float(where.flatten()[0]) if where.numel() else NOTHING
        return None if only == NOTHING else (None, int(only), 1)
    if len(varying) > 1 or varying[0] not in dims:
        return None
    along = _narrow(where, [dim for dim in range(where.dim()) if dim != varying[0]]).flatten()
    known = torch.isfinite(along).nonzero().flatten()
    if len(known) < 2:
        return (varying[0], int(along[known[0]] - known[0]), 1) if len(known) else None
    step = (along[known[-1]] - along[known[0]]) / (known[-1] - known[0])
    begin = along[known[0]] - step * known[0]
    if not bool((along[known] == begin + step * known).all()) or float(step) != int(step) or int(step) == 0:
        return None
    return varying[0], int(begin), int(step)


def _each(function: Callable[[Tensor], Tensor], planes: Planes) -> Planes:
    done: dict[int, Tensor] = {}
    for plane in planes:
        if id(plane) not in done:
            done[id(plane)] = function(plane)
    top, bottom, left, right = (done[id(plane)] for plane in planes)
    return top, bottom, left, right


def _each_ideal(
    function: Callable[[Tensor], Tensor], ideal: tuple[Ideal | None, Ideal | None]
) -> tuple[Ideal | None, Ideal | None]:
    rows, columns = (
        each if each is None or each.where is None else replace(each, where=function(each.where)) for each in ideal
    )
    return rows, columns


def _varies(planes: Sequence[Tensor], dim: int) -> bool:
    return any(plane.shape[dim] > 1 and plane.stride(dim) != 0 for plane in planes)


def _narrow(plane: Tensor, dims: Sequence[int]) -> Tensor:
    for dim in dims:
        if plane.shape[dim] > 1:
            plane = plane.narrow(dim, 0, 1)
    return plane


def _both(shape: tuple[int, ...]) -> Callable[[Ideal | None, Ideal | None], Ideal | None]:
    """The union of two ideal fields whose elements are broadcast to `shape`."""

    def both(one: Ideal | None, other: Ideal | None) -> Ideal | None:
        if one is None or other is None:
            return None
        start = min(one.start, other.start)
        size = max(one.start + one.size, other.start + other.size) - start
        if one.where is not None and other.where is not None and one.stride == other.stride:
            ours, theirs = one.where.expand(shape), other.where.expand(shape)
            same = ours is theirs or _agree(ours, theirs)
            if same:
                where = ours if ours is theirs else least([ours, theirs], shape)
                return Ideal(start, one.stride, size, where)
        if any(each.where is None or not _many(each.where) for each in (one, other)):
            return Ideal(start, None, size, None)
        return None

    return both


def _agree(ours: Tensor, theirs: Tensor) -> bool:
    same = [dim for dim in range(ours.dim()) if not _varies([ours, theirs], dim)]
    ours, theirs = _narrow(ours, same), _narrow(theirs, same)
    return bool(((ours == theirs) | torch.isinf(ours) | torch.isinf(theirs)).all())


def _many(where: Tensor) -> bool:
    return any(_varies([where], dim) for dim in range(where.dim()))


def _joined_ideal(ideal: Ideal | None, dims: Sequence[int]) -> Ideal | None:
    if ideal is None or ideal.where is None or ideal.stride is None:
        return ideal
    where = ideal.where
    if not any(_varies([where], dim) for dim in dims):
        return replace(ideal, where=least_along(where, dims))
    first = compact(least_along(where, dims))
    last = compact(-least_along(torch.where(torch.isinf(where), where, -where), dims))
    if torch.equal(first, last):
        return replace(ideal, where=first)
    if _many(first) or _many(last) or not bool(torch.isfinite(first).all()):
        return None
    low, high = int(first.flatten()[0]), int(last.flatten()[0])
    return Ideal(ideal.start + low * ideal.stride, None, ideal.size + (high - low) * ideal.stride, None)
