"""Whether what a network gives for an image is that image's own: an image alone, in a batch, and again."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn

from actmine.pipeline.network.layouts import FEATURES, as_map, layout_of, map_shape
from actmine.pipeline.network.points import Point, Trace
from actmine.pipeline.network.shapes import like

_SAMPLED = 4096
_ROUNDING, _COARSE = 2e-5, 1e-3
BATCH, CHANCE = "it depends on the other images of a batch", "it is different each time (dropout left on, say)"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one point.

    `image_dim`: the dimension that grows with the number of images; `reason`: why it cannot be read, empty if it can;
    `dependence`: `BATCH`, `CHANCE` or empty; `nan`: none of its
    values was a number.
    """

    image_dim: int = 0
    reason: str = ""
    dependence: str = ""
    nan: bool = False


def check(trace: Trace, points: Sequence[Point], images: Tensor) -> dict[str, Finding]:
    """What two different images `[2, C, H, W]` show of each of `points`, by its node; four images' way through.

    Both in a batch, then each alone: image i's part of a batch must be what it is alone. Where something is not, the
    first goes again: that tells chance from company. A part is compared at up to 4,096 of its values, drawn at random,
    within the rounding of float32. Raises whatever the network raises.
    """
    shapes = {point.node: (point.shape, point.unit_dim) for point in points if point.shape is not None}
    found: dict[str, Finding] = {}
    layouts: dict[str, str] = {}

    def begin(node: str, tensor: Tensor) -> None:
        """Finds out where the images of a batch of two are."""
        shape, unit_dim = shapes[node]
        dim = _image_dim(shape, tuple(tensor.shape))
        if dim is None:
            found[node] = Finding(0, f"no dimension of its tensor counts images ({list(shape)} for one image)")
        elif not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            found[node] = Finding(dim, f"its values are {kind}, not real numbers")
        else:
            found[node] = Finding(dim)
            if layout := layout_of(shape, unit_dim, dim):
                layouts[node] = layout

    def seen(some: Tensor, first: bool = False) -> dict[str, Tensor]:
        """Of every point, the values that are compared, of each image: `[B, up to 4,096]`."""
        kept: dict[str, Tensor] = {}

        def see(node: str, tensor: Tensor) -> None:
            if first and node in shapes:
                begin(node, tensor)
            if node in layouts and tensor.is_floating_point():
                sample = _sample(tensor, layouts[node], shapes[node][0], len(some))
                if sample is not None:
                    kept[node] = sample

        with torch.inference_mode():
            trace.run(some, see)
        return kept

    both = seen(images, first=True)
    alone = [seen(images[:1]), seen(images[1:])]
    unlike: dict[str, Tensor] = {}
    for node in shapes.keys() - found.keys():
        found[node] = Finding(0, "the network runs it for some images only")
    for node in layouts:
        if not all(node in kept for kept in (both, *alone)):
            found[node] = replace(
                found[node], reason="the network runs it, or gives it this shape, for some images only"
            )
            continue
        apart = torch.cat([kept[node] for kept in alone])
        found[node] = replace(found[node], nan=bool(apart.isnan().all()))
        if not _same(both[node], apart, apart):
            unlike[node] = apart
    if unlike:
        again, elsewhere = seen(images[:1]), _reordered(trace, set(unlike), images)
        for node, apart in unlike.items():
            chance = node not in again or not _same(again[node], alone[0][node], apart)
            if node in elsewhere and not chance:
                found[node] = replace(found[node], reason="its images do not lie one behind the other")
            else:
                found[node] = replace(found[node], dependence=CHANCE if chance else BATCH)
    return found


def _image_dim(one: tuple[int, ...], two: tuple[int, ...]) -> int | None:
    """The dimension that counts images, of a tensor's shapes for one and for two; None where that is not so."""
    grown = [dim for dim, (before, after) in enumerate(zip(one, two, strict=False)) if before != after]
    return grown[0] if len(one) == len(two) and len(grown) == 1 and two[grown[0]] == 2 * one[grown[0]] else None


def two_images(module: nn.Module, shape: tuple[int, int, int]) -> Tensor:
    """Two images `[2, C, H, W]` unlike each other, of a network's own precision on its own device.

    A smooth one and one full of detail, the same every time.
    """
    generator = torch.Generator().manual_seed(0)
    channels, height, width = shape
    coarse = torch.randn(1, channels, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    detail = 0.5 + torch.randn(1, *shape, generator=generator)
    return torch.cat([smooth, detail]).to(like(module))


def has_values(module: nn.Module) -> bool:
    """Whether a network can be run: on the device `meta` there is nothing but shapes."""
    return not any(each.is_meta for each in itertools.chain(module.parameters(), module.buffers()))


def _sample(tensor: Tensor, layout: str, shape: tuple[int, ...], images: int) -> Tensor | None:
    """Some values of every image, at the same random places of its map: `[B, up to 4,096]`, float32.

    None where the map is not the one that `shape`, for one image, has.
    """
    units, height, width = map_shape(shape, layout)
    size = (units, height or 1, width or 1)
    if tensor.numel() != images * math.prod(size):
        return None
    maps = tensor[..., None, None] if layout == FEATURES else as_map(tensor, layout, height, width)
    if maps.shape != (images, *size):
        return None
    at = [each.to(tensor.device) for each in _places(size)]
    return maps[:, at[0], at[1], at[2]].float()


@cache
def _places(size: tuple[int, int, int]) -> list[Tensor]:
    """Random places in a map of a `size`: units, rows, columns."""
    generator = torch.Generator().manual_seed(0)
    count = min(_SAMPLED, math.prod(size))
    return [torch.randint(length, (count,), generator=generator) for length in size]


def _same(values: Tensor, wanted: Tensor, apart: Tensor) -> bool:
    """Whether values are the same but for rounding, which is small beside them, and beside what tells images `apart`.

    All `[B, N]`; NaN equals NaN.
    """
    if not torch.equal(values.isnan(), wanted.isnan()):
        return False
    apart = apart.nan_to_num(0, 0, 0)
    scale = float(apart.abs().max()) if apart.numel() else 0.0
    between = float((apart[:1] - apart[1:]).abs().max()) if apart.numel() else 0.0
    allowed = min(_COARSE * scale, _ROUNDING * scale + 0.05 * between)
    off = (values.nan_to_num(0) - wanted.nan_to_num(0)).abs()
    return bool((off <= allowed + torch.finfo(torch.float32).tiny).all())


def _reordered(trace: Trace, nodes: set[str], images: Tensor) -> list[str]:
    """Those of `nodes` that hold the same values for a batch as for its images alone, but elsewhere."""

    def sums(some: Tensor) -> dict[str, Tensor]:
        kept: dict[str, Tensor] = {}

        def see(node: str, tensor: Tensor) -> None:
            if node in nodes:
                values = tensor.double()
                kept[node] = torch.stack([values.abs().pow(power).sum() for power in (1, 2, 3)] + [values.sum()])

        with torch.inference_mode():
            trace.run(some, see)
        return kept

    first, second, both = (sums(some) for some in (images[:1], images[1:], images))

    def equal(node: str) -> bool:
        apart = first[node] + second[node]
        return bool(((both[node] - apart).abs() <= _COARSE * apart[[0, 1, 2, 0]]).all())

    return [node for node in nodes if equal(node)]
