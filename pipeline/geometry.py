"""Carries a box from the network's input back to pixels of the original image, exactly.

An output pixel of a resize depends on every original pixel below its resampling filter, so the way back widens
the box by the filter's support; the bounds are those that Pillow's resampling uses.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.images import Preprocessing

_SUPPORT = {"box": 0.5, "bilinear": 1.0, "hamming": 1.0, "bicubic": 2.0, "lanczos": 3.0}
"""Half width of each of Pillow's filters (output pixels when enlarging)."""


@dataclass(frozen=True, slots=True)
class Box:
    """Half-open rectangle in pixels: left and top inside, right and bottom outside."""

    left: int
    top: int
    right: int
    bottom: int


def original_box(box: Box, width: int, height: int, how: Preprocessing) -> Box:
    """The pixels of an original image of `width` by `height` that reach `box` of the network's input."""
    resized_width, resized_height = how.resized(width, height)
    left, right = _original_interval(box.left, box.right, width, resized_width, how.crop[1], how)
    top, bottom = _original_interval(box.top, box.bottom, height, resized_height, how.crop[0], how)
    return Box(left, top, right, bottom)


def crop_offset(resized: int, crop: int) -> int:
    """Where torchvision's centre crop begins on one axis (pixels); negative where it pads."""
    if crop > resized:
        return -((crop - resized) // 2)
    return round((resized - crop) / 2.0)


def _original_interval(
    low: int, high: int, original: int, resized: int, crop: int, how: Preprocessing
) -> tuple[int, int]:
    offset = crop_offset(resized, crop)
    first = min(max(low + offset, 0), resized - 1)
    last = min(max(high + offset, first + 1), resized) - 1
    if original == resized:
        return first, last + 1
    return _filter_bounds(first, original, resized, how)[0], _filter_bounds(last, original, resized, how)[1]


def _filter_bounds(pixel: int, original: int, resized: int, how: Preprocessing) -> tuple[int, int]:
    """The original pixels that one pixel of the resized image is made of: Pillow's `precompute_coeffs`."""
    scale = original / resized
    center = (pixel + 0.5) * scale
    if how.interpolation == "nearest":
        return min(int(center), original - 1), min(int(center), original - 1) + 1
    support = _SUPPORT[how.interpolation] * max(scale, 1.0)
    return max(int(center - support + 0.5), 0), min(int(center + support + 0.5), original)
