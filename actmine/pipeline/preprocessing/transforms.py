"""Any transform, of torchvision, timm or one's own, as a `Preprocessing`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from actmine.pipeline.errors import UserError
from actmine.pipeline.preprocessing.images import ImageError, Preprocessing, fixed_size, transformed
from actmine.pipeline.preprocessing.known_transforms import Reading, read
from actmine.pipeline.preprocessing.options import PreprocessingOptions, check_numbers, with_overrides
from actmine.pipeline.preprocessing.steps import Grey

__all__ = ["OnGrey", "PreprocessingOptions", "follow", "with_overrides"]
_SAMPLES = ((320, 240), (250, 331))
_PURE = ("#ff0000", "#00ff00", "#0000ff")


@dataclass(frozen=True, slots=True)
class OnGrey:
    """A transform that is given grey images."""

    transform: Callable[[Image.Image], Any]

    def __call__(self, image: Image.Image) -> Any:
        """What it makes of the image in grey."""
        return self.transform(image.convert("L"))


def follow(transform: Callable[[Image.Image], Any], channels: int = 3) -> Preprocessing:
    """What `transform` does to an image for a network of so many input channels.

    Where resizes, crops and pads act on Pillow images before anything else does, pixels are computed here, the same as
    the transform's own. Else the transform makes the input, and if one of its parts is not known, boxes cannot be
    carried back (`followed`). Raises `UserError` for a transform that is no use, or that depends on chance.
    """
    if channels not in (1, 3):
        raise UserError(f"The network takes {channels} channels; an image has 1 (grey) or 3.")
    reading = read(transform)
    if reading.known and channels == 1 and reading.channels == 3:
        reading = read(transform, channels=1)
        reading.steps.insert(0, Grey())
        transform = OnGrey(transform)
    if reading.plain and reading.state in ("scaled", "normalized"):
        mean, std = (_for_channels(values, reading.channels) for values in (reading.mean, reading.std))
        check_numbers(mean, std)
        steps = tuple(reading.steps)
        return Preprocessing(steps, fixed_size(steps), mean, std, reciprocal=reading.reciprocal)
    return _opaque(transform, reading, channels)


def _for_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(values) == 1:
        return values * channels
    if len(values) != channels:
        raise UserError(f"The transform normalizes {len(values)} channels of images that have {channels}.")
    return values


def _opaque(transform: Callable[[Image.Image], Any], reading: Reading, channels: int) -> Preprocessing:
    """A preprocessing whose transform makes the input, as it shows on a few pictures."""
    if not reading.known and channels == 1:
        transform = _seeing_grey(transform)
    shapes = [_tried(transform, size).shape for size in _SAMPLES]
    if shapes[0][2] not in (1, 3) or channels < shapes[0][2]:
        raise UserError(
            f"The transform gives {shapes[0][2]} channels; an image has 1 or 3, the network takes {channels}."
        )
    first, again = (_tried(transform, _SAMPLES[0]) for _ in range(2))
    if not np.array_equal(first, again, equal_nan=True):
        raise UserError(
            "The transform gives other pixels each time, so that every run would see others. "
            "Give the one that the network is evaluated with."
        )
    mean, std = _amounts_to(transform)
    if reading.known and reading.state == "normalized":
        mean, std = (_for_channels(values, shapes[0][2]) for values in (reading.mean, reading.std))
    steps = tuple(reading.steps) if reading.known else ()
    size = (shapes[0][0], shapes[0][1]) if shapes[0] == shapes[1] else None
    if reading.known and size is not None:
        size = fixed_size(steps)
    order = _order(transform) if len(mean) == 3 else ()
    return Preprocessing(steps, size, mean, std, reading.known, transform, _digest(first), order=order)


def _seeing_grey(transform: Callable[[Image.Image], Any]) -> Callable[[Image.Image], Any]:
    """`transform` for a network of one channel: given grey images, unless it makes them grey itself."""
    try:
        if transformed(_picture(_SAMPLES[0]), transform).shape[2] == 1:
            return transform
    except ImageError:
        pass  # a transform of grey images may refuse others
    return OnGrey(transform)


def _picture(size: tuple[int, int]) -> Image.Image:
    """A plain picture with detail of every kind, the same each time."""
    width, height = size
    down, along = np.mgrid[:height, :width]
    grains = np.random.Generator(np.random.PCG64(width)).integers(0, 64, (height, width, 3))
    slopes = np.stack([along * 160 // width, down * 160 // height, (along + down) % 97 + 32], 2)
    return Image.fromarray((slopes + grains).astype(np.uint8))


def _tried(transform: Callable[[Image.Image], Any], what: tuple[int, int] | Image.Image) -> np.ndarray:
    picture = what if isinstance(what, Image.Image) else _picture(what)
    try:
        return transformed(picture, transform)
    except ImageError as error:
        size = f"{picture.width} x {picture.height}"
        raise UserError(f"The preprocessing does not work on a plain RGB image of {size} pixels. {error}.") from error


def _amounts_to(transform: Callable[[Image.Image], Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and std with which it normalizes, as plain black and white come out (ascent needs to know).

    Where they come out alike, as of a transform that looks at each image's own contrast, those of a usual one.
    """
    black, white = (_tried(transform, Image.new("RGB", _SAMPLES[0], colour)) for colour in ("black", "white"))
    middle = black.shape[0] // 2, black.shape[1] // 2
    low, high = black[middle].astype(np.float64), white[middle].astype(np.float64)
    if not np.isfinite([low, high]).all() or (high <= low).any():
        return (0.5,) * len(low), (0.25,) * len(low)
    std = 1 / (high - low)
    return tuple(float(f"{value:.6g}") + 0.0 for value in -low * std), tuple(float(f"{value:.6g}") for value in std)


def _order(transform: Callable[[Image.Image], Any]) -> tuple[int, ...] | None:
    """Which channels are red, green and blue, as pure colours come out; empty if in this order, None if none shows."""
    black, *pure = (
        _tried(transform, Image.new("RGB", _SAMPLES[0], colour)).mean((0, 1)) for colour in ("black", *_PURE)
    )
    rises = np.stack([colour - black for colour in pure])
    if not np.isfinite(rises).all():
        return None
    order = tuple(int(channel) for channel in rises.argmax(1))
    if sorted(order) != [0, 1, 2] or (rises.max(1) <= 0).any():
        return None
    return () if order == (0, 1, 2) else order


def _digest(pixels: np.ndarray) -> str:
    """Tells what a transform does from what another one does, in spite of last bits that machines differ in."""
    pooled = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(pixels).permute(2, 0, 1), 16)
    return hashlib.sha256(np.round(pooled.numpy(), 3).tobytes()).hexdigest()[:16]
