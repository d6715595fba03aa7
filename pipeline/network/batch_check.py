"""Whether what a network gives for an image is that image's own: an image alone, in a batch, and again."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pipeline.network.layouts import FEATURES, as_map, layout_of, map_shape
from pipeline.network.points import Point, Trace

_SAMPLED = 4096
_ROUNDING, _COARSE = 2e-5, 1e-3
BATCH, CHANCE = "it depends on the other images of a batch", "it is different each time (dropout left on, say)"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one point.

    `reason`: why it cannot be read, empty if it can; `dependence`: `BATCH`, `CHANCE` or empty; `nan`: none of its
    values was a number.
    """

    reason: str = ""
    dependence: str = ""
    nan: bool = False


def check(trace: Trace, points: Sequence[Point], images: Tensor) -> dict[str, Finding]:
    """What two different `images` `[2, C, H, W]` show of each of `points`, by its node; five images' way through.

    Each alone, both in a batch, and the first again: image i's part of a batch must be what it is alone, and the same
    each time. A part is compared at up to 4,096 of its values, drawn at random, within the rounding of float32.
    """
    layouts = {point.node: layout for point in points if (layout := _layout(point))}
    shapes = {point.node: point.shape for point in points if point.shape is not None}
    found: dict[str, Finding] = {}

    def seen(some: Tensor) -> dict[str, Tensor]:
        """Of every point, the values that are compared, of each image: `[B, up to 4,096]`."""
        kept: dict[str, Tensor] = {}

        def see(node: str, tensor: Tensor) -> None:
            if node not in layouts:
                return
            if not tensor.is_floating_point():
                found[node] = Finding(f"its values are {str(tensor.dtype).removeprefix('torch.')}, not real numbers")
                return
            try:
                kept[node] = _sample(tensor, layouts[node], shapes[node], len(some))
            except RuntimeError:  # of another size than it had for a black image
                found[node] = Finding(f"its shape depends on what the image shows ({list(tensor.shape)})")

        with torch.inference_mode():
            trace.run(some, see)
        return kept

    first, second, both, again = (seen(some) for some in (images[:1], images[1:], images, images[:1]))
    mixed: list[str] = []
    for node in layouts:
        if node in found:
            continue
        if not all(node in kept for kept in (first, second, both, again)):
            found[node] = Finding("the network runs it for some images only")
            continue
        apart = torch.cat([first[node], second[node]])
        finding = Finding(nan=bool(apart.isnan().all()))
        if not _same(again[node], first[node], apart):
            finding = replace(finding, dependence=CHANCE)
        elif not _same(both[node], apart, apart):
            finding = replace(finding, dependence=BATCH)
            mixed.append(node)
        found[node] = finding
    if mixed:
        for node in _reordered(trace, set(mixed), images):
            found[node] = Finding("its images do not lie one behind the other")
    return found


def two_images(module: nn.Module, shape: tuple[int, int, int]) -> Tensor:
    """Two images `[2, C, H, W]` unlike each other, of a network's own precision on its own device.

    A smooth one and one full of detail, the same every time.
    """
    generator = torch.Generator().manual_seed(0)
    channels, height, width = shape
    coarse = torch.randn(1, channels, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    detail = 0.5 + torch.randn(1, *shape, generator=generator)
    tensors = itertools.chain(module.parameters(), module.buffers())
    like = next((each for each in tensors if each.is_floating_point()), torch.empty(0))
    return torch.cat([smooth, detail]).to(like.device, like.dtype)


def has_values(module: nn.Module) -> bool:
    """Whether a network can be run: on the device `meta` there is nothing but shapes."""
    return not any(each.is_meta for each in itertools.chain(module.parameters(), module.buffers()))


def _layout(point: Point) -> str | None:
    return None if point.shape is None else layout_of(point.shape, point.unit_dim, point.image_dim)


def _sample(tensor: Tensor, layout: str, shape: tuple[int, ...], images: int) -> Tensor:
    """Some values of every image, at the same random places of its map: `[B, up to 4,096]`, float32."""
    units, height, width = map_shape(shape, layout)
    maps = tensor[..., None, None] if layout == FEATURES else as_map(tensor, layout, height, width)
    size = (units, height or 1, width or 1)
    if maps.shape != (images, *size):
        raise RuntimeError
    generator = torch.Generator().manual_seed(0)
    count = min(_SAMPLED, units * size[1] * size[2])
    at = [torch.randint(length, (count,), generator=generator).to(tensor.device) for length in size]
    return maps[:, at[0], at[1], at[2]].float()


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
