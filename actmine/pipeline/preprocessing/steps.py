"""The geometric steps from an image to network input, as values: what each does to pixels, and its way back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

Size = tuple[int, int]
"""Width and height (pixels), as Pillow has them."""
Interval = tuple[int, int]
"""Rows or columns of an image: first, and one behind the last (pixels)."""

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "nearest-exact": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_SUPPORT = {"box": 0.5, "bilinear": 1.0, "hamming": 1.0, "bicubic": 2.0, "lanczos": 3.0}
"""Half width of each filter, of Pillow's as of ATen's (output pixels when enlarging)."""


_NOTHING = 1e-8  # Pillow rounds weights of 8-bit pixels to 22 bits
_SINGLE = 4e-7  # places in tensors are computed in float32, fused or not: how wrong they can be, relatively


class Step:
    """One thing done to an image on its way to the network. This one leaves its geometry alone."""

    __slots__ = ()

    def size(self, before: Size) -> Size:
        """Width and height behind this step (pixels)."""
        return before

    def applied(self, image: Image.Image) -> Image.Image:
        """The image behind this step. Raises ValueError where nothing would be left of it."""
        return image

    def origin(self, axis: int, found: Interval, before: int, after: int) -> Interval:
        """Which of `before` many columns (`axis` 0) or rows (1) those of `found`, of `after` many, are made of."""
        return found

    def back(self, axis: int, at: float, before: int, after: int) -> float:
        """Where a point `at` (pixels; a pixel's middle is at its half) of `after` many columns or rows was before."""
        return at


@dataclass(frozen=True, slots=True)
class Grey(Step):
    """One grey channel (ITU-R 601, as Pillow's L), repeated where `channels` is 3."""

    channels: int = 1

    def applied(self, image: Image.Image) -> Image.Image:
        """The same size, mode L or RGB."""
        grey = image.convert("L")
        return grey if self.channels == 1 else Image.merge("RGB", [grey] * 3)


@dataclass(frozen=True, slots=True)
class Resize(Step):
    """Makes an image another size.

    `rule` says what `to` (pixels) means. "short": the short side, unless the long one would then exceed `most`;
    "long": the long side; "exact": height and width; "ratio": height and width of a frame that the image covers
    (`longest` 0), fits into (1) or lies between (timm's ResizeKeepRatio). `filter` says whose arithmetic: "pillow",
    or that of tensors, "antialias" or "plain".
    """

    to: tuple[int, ...]
    interpolation: str = "bilinear"
    rule: str = "short"
    most: int | None = None
    longest: float = 0.0
    filter: str = "pillow"

    def size(self, before: Size) -> Size:
        """By the rules of torchvision, which cuts fractions off, and of timm, which rounds."""
        width, height = before
        if self.rule == "exact":
            return self.to[1], self.to[0]
        if self.rule == "ratio":
            down, along = height / self.to[0], width / self.to[1]
            ratio = max(down, along) * self.longest + min(down, along) * (1.0 - self.longest)
            return round(width * 1.0 / ratio), round(height * 1.0 / ratio)
        short, long = min(before), max(before)
        if self.rule == "long":
            short, long = int(self.to[0] * short / long), self.to[0]
        else:
            short, long = self.to[0], int(self.to[0] * long / short)
            if self.most is not None and long > self.most:
                short, long = int(self.most * short / long), self.most
        return (short, long) if width <= height else (long, short)

    def applied(self, image: Image.Image) -> Image.Image:
        """What torchvision's resize of a PIL image gives."""
        size = self.size(image.size)
        return image if size == image.size else image.resize(size, RESAMPLING[self.interpolation])

    def origin(self, axis: int, found: Interval, before: int, after: int) -> Interval:
        """Everything that has weight in any pixel of `found`."""
        if before == after:
            return found
        if self.interpolation.startswith("nearest"):
            source = _nearest(before, after, "" if self.filter == "pillow" else self.interpolation)
            return source[found[0]], source[found[1] - 1] + 1
        if self.filter == "plain":
            first, last = (
                _plain_bounds(pixel, before, after, self.interpolation) for pixel in (found[0], found[1] - 1)
            )
            return first[0], last[1]
        under = _Filter(self.interpolation, before, after, before * _SINGLE if self.filter == "antialias" else 0.0)
        low, high = under.bounds(found[0])[0], under.bounds(found[1] - 1)[1]
        if self.filter == "pillow":
            while low < high - 1 and not under.counts(low, range(*found)):
                low += 1
            while low < high - 1 and not under.counts(high - 1, range(found[1] - 1, found[0] - 1, -1)):
                high -= 1
        return low, high

    def back(self, axis: int, at: float, before: int, after: int) -> float:
        """Larger or smaller by the ratio of both sizes."""
        return at * before / after


@dataclass(frozen=True, slots=True)
class Crop(Step):
    """The middle, `height` by `width` pixels, padded with `fill` where the image is smaller: torchvision's rule."""

    height: int
    width: int
    fill: int | tuple[int, ...] = 0
    padding: str = "constant"

    @staticmethod
    def offset(before: int, crop: int) -> int:
        """Where the crop begins on one axis (pixels); negative where it pads. Halves go to the even side."""
        return -((crop - before) // 2) if crop > before else round((before - crop) / 2.0)

    def size(self, before: Size) -> Size:
        """Always the same."""
        return self.width, self.height

    def applied(self, image: Image.Image) -> Image.Image:
        """What torchvision's CenterCrop, or timm's CenterCropOrPad, gives of a PIL image."""
        borders = [
            max(self.width - image.width, 0) // 2,
            max(self.height - image.height, 0) // 2,
            (max(self.width - image.width, 0) + 1) // 2,
            (max(self.height - image.height, 0) + 1) // 2,
        ]
        if any(borders):
            image = _padded(image, borders, self.fill, self.padding)
        left, top = (max(self.offset(*of), 0) for of in ((image.width, self.width), (image.height, self.height)))
        return image.crop((left, top, left + self.width, top + self.height))

    def origin(self, axis: int, found: Interval, before: int, after: int) -> Interval:
        """The same pixels; of padding, those it repeats, or the nearest."""
        return _behind_padding(found, self.offset(before, after), before, self.padding)

    def back(self, axis: int, at: float, before: int, after: int) -> float:
        """As much further on as the crop begins."""
        return at + self.offset(before, after)


@dataclass(frozen=True, slots=True)
class LowerCrop(Crop):
    """The middle by the rule of transformers' image processors: halves go to the left and to the top."""

    @staticmethod
    def offset(before: int, crop: int) -> int:
        """Where the crop begins on one axis (pixels)."""
        return (before - crop) // 2


@dataclass(frozen=True, slots=True)
class Pad(Step):
    """Pixels put around the image (negative: taken off), of one colour, or repeating it as `numpy.pad` names it."""

    left: int
    top: int
    right: int
    bottom: int
    fill: int | tuple[int, ...] = 0
    padding: str = "constant"

    def size(self, before: Size) -> Size:
        """Wider and higher by the borders."""
        return before[0] + self.left + self.right, before[1] + self.top + self.bottom

    def applied(self, image: Image.Image) -> Image.Image:
        """What torchvision's Pad gives of a PIL image."""
        if min(self.size(image.size)) < 1:
            raise ValueError(f"nothing is left of {image.width} x {image.height} pixels")
        return _padded(image, [self.left, self.top, self.right, self.bottom], self.fill, self.padding)

    def origin(self, axis: int, found: Interval, before: int, after: int) -> Interval:
        """The same pixels; of padding, those it repeats, or the nearest."""
        return _behind_padding(found, -(self.left, self.top)[axis], before, self.padding)

    def back(self, axis: int, at: float, before: int, after: int) -> float:
        """As much less far as the border is wide."""
        return at - (self.left, self.top)[axis]


def _padded(image: Image.Image, borders: list[int], fill: int | tuple[int, ...], padding: str) -> Image.Image:
    """With `borders` (left, top, right, bottom) around it, in pixels."""
    from torchvision.transforms import functional  # seconds, and most images are larger than the network's input

    found: Image.Image = functional.pad(image, borders, fill, padding)
    return found


def _behind_padding(found: Interval, offset: int, before: int, padding: str) -> Interval:
    """The pixels, of `before` many, that are shown by those of `found`, which begin `offset` further on."""
    low, high = found[0] + offset, found[1] + offset
    inside = min(max(low, 0), before - 1), max(min(high, before), 1)
    if padding in ("constant", "edge") or (low >= 0 and high <= before):
        return inside[0], max(inside[1], inside[0] + 1)
    places = np.arange(low, high)
    if padding == "reflect":
        turn = max(2 * (before - 1), 1)
        shown = np.minimum(places % turn, -places % turn)
    else:  # symmetric
        turn = 2 * before
        shown = np.minimum(places % turn, (-places - 1) % turn)
    return int(shown.min()), int(shown.max()) + 1


@lru_cache(maxsize=4096)
def _nearest(before: int, after: int, tensors: str) -> tuple[int, ...]:
    """The one pixel that each of a resized image is, as Pillow or (`tensors`: its name for it) torch picks them."""
    if tensors:
        import torch

        places = torch.arange(before, dtype=torch.float32)[None, None]
        found = torch.nn.functional.interpolate(places, size=after, mode=tensors)[0, 0].numpy()
    else:
        line = Image.fromarray(np.arange(before, dtype=np.int32)[None])
        found = np.asarray(line.resize((after, 1), Image.Resampling.NEAREST))[0]
    return tuple(found.astype(int).tolist())


def _plain_bounds(pixel: int, before: int, after: int, interpolation: str) -> Interval:
    """Of a tensor without antialiasing: the two pixels (four if bicubic) around the place of one behind the resize."""
    place, wrong = (pixel + 0.5) * before / after - 0.5, before * _SINGLE
    around, least = (1, -math.inf) if interpolation == "bicubic" else (0, 0.0)
    low, high = (math.floor(max(place + side * wrong, least)) for side in (-1, 1))
    return min(max(low - around, 0), before - 1), max(min(high + around + 2, before), 1)


class _Filter:
    """A resampling filter on one axis: `precompute_coeffs` of Pillow, and the same in ATen.

    `slack` is how far beside it something may still count (pixels).
    """

    def __init__(self, interpolation: str, before: int, after: int, slack: float) -> None:
        self.before, self.scale, self.weight = before, before / after, _WEIGHTS[interpolation]
        self.wide = max(self.scale, 1.0)
        self.reach = _SUPPORT[interpolation] * self.wide + slack

    def bounds(self, pixel: int) -> Interval:
        """What lies below it at a pixel behind the resize."""
        center = (pixel + 0.5) * self.scale
        return max(int(center - self.reach + 0.5), 0), min(int(center + self.reach + 0.5), self.before)

    def counts(self, source: int, pixels: range) -> bool:
        """Whether `source` has any weight in `pixels`, of which those that come first are the nearest to it."""
        for pixel in pixels:
            low, high = self.bounds(pixel)
            if not low <= source < high:
                return False
            if abs(self.weight((source + 0.5 - (pixel + 0.5) * self.scale) / self.wide)) > _NOTHING:
                return True
        return False


def _sinc(x: float) -> float:
    return math.sin(math.pi * x) / (math.pi * x) if x else 1.0


def _bicubic(x: float) -> float:
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return ((2.5 - 0.5 * x) * x - 4) * x + 2 if x < 2 else 0.0


_WEIGHTS: dict[str, Callable[[float], float]] = {
    "box": lambda x: float(-0.5 < x <= 0.5),
    "bilinear": lambda x: max(1 - abs(x), 0.0),
    "hamming": lambda x: _sinc(x) * (0.54 + 0.46 * math.cos(math.pi * x)) if abs(x) < 1 else 0.0,
    "bicubic": _bicubic,
    "lanczos": lambda x: _sinc(x) * _sinc(x / 3) if abs(x) < 3 else 0.0,
}
"""What Pillow's filters give, by distance (output pixels when enlarging)."""
