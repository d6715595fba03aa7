"""An activation map over the picture of its image, as a heat map: where a unit is active, and how much."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from actmine.pipeline.exemplars.pictures import Box
from actmine.pipeline.readings.statistics_options import BOTTOM
from actmine.schemas.maps import LEVELS, PLACE

_GREY = 0.65  # how much of its own colour a picture loses below the heat
_BEYOND = 0.7  # brightness of what no position of the map stands for
_OPAQUE, _RISE = 0.78, 0.75  # alpha of the largest activation, and its power below


@dataclass(frozen=True, slots=True)
class ActivationMap:
    """A unit's activations over an image: `values` float32 `[H, W]`, at equal parts of `place`.

    `place` is left, top, right and bottom in pixels of the original image, beyond which it may reach; None where that
    is not known. `cell` is how many rows and columns of the layer's own map each value stands for. `other_tokens` are
    activations at class and register tokens, which are nowhere. `lowest`: what counts is the most negative activation.
    """

    values: np.ndarray
    place: tuple[float, float, float, float] | None
    cell: tuple[int, int] = (1, 1)
    other_tokens: tuple[float, ...] = ()
    lowest: bool = False

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> ActivationMap:
        """That of a row of `maps/`."""
        codes = np.frombuffer(row["map"], np.uint8).reshape(int(row["height"]), int(row["width"]))
        low, high = float(row["low"]), float(row["high"])
        values = (low + codes * ((high - low) / LEVELS)).astype(np.float32)
        sides = [row[name] for name in PLACE]
        known = all(side is not None and np.isfinite(side) for side in sides)
        place = (float(sides[0]), float(sides[1]), float(sides[2]), float(sides[3])) if known else None
        others = row["other_tokens"]
        tokens = () if others is None else tuple(map(float, others))
        return cls(values, place, (int(row["cell_height"]), int(row["cell_width"])), tokens, row["band"] == BOTTOM)

    @property
    def strength(self) -> np.ndarray:
        """How strong it is everywhere, from 0 to 1: the share of its largest activation (or its lowest); `[H, W]`.

        Activations of the other sign count as 0 unless there are no others.
        """
        values = -self.values if self.lowest else self.values
        most, least = float(values.max()), min(float(values.min()), 0.0)
        if most <= 0:
            most, values = most - least, values - least
        found: np.ndarray = np.clip(values / most, 0, 1) if most > 0 else np.zeros_like(values)
        return found


def heat(picture: Image.Image, box: Box, activations: ActivationMap) -> Image.Image:
    """A picture of the `box` of an image (pixels of the original), RGB, with its heat over it.

    What is inactive keeps its brightness and loses some of its colour, so that no colour of the picture is taken for
    heat; what is most active is brightest. Raises ValueError where the place of the map is not known.
    """
    if activations.place is None:
        raise ValueError("the place of this map in its image is not known")
    width, height = picture.size
    places = [
        (np.arange(count) + 0.5) * (box[axis + 2] - box[axis]) / count + box[axis]
        for axis, count in enumerate((width, height))
    ]
    strength, inside = _sampled(activations.strength, activations.place, *places)
    colours = np.asarray(picture.convert("RGB"), np.float32)
    grey = colours @ np.array([0.299, 0.587, 0.114], np.float32)
    below = colours * (1 - _GREY) + grey[..., None] * _GREY
    below = np.where(inside[..., None], below, below * _BEYOND)
    alpha = (_OPAQUE * strength**_RISE)[..., None]
    mixed = below * (1 - alpha) + _ramp()[np.round(strength * 255).astype(int)] * alpha
    return Image.fromarray(np.round(mixed).clip(0, 255).astype(np.uint8))


def overlay(activations: ActivationMap) -> bytes:
    """The heat alone as a PNG with a pixel for each value, the more opaque the more active: to lie over a picture."""
    strength = activations.strength
    colours = _ramp()[np.round(strength * 255).astype(int)].astype(np.uint8)
    alpha = np.round(255 * _OPAQUE * strength**_RISE).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(np.concatenate([colours, alpha[..., None]], -1)).save(data, "PNG")
    return data.getvalue()


def _sampled(
    values: np.ndarray, place: tuple[float, float, float, float], x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Values `[H, W]` at pixels of the original, between their middles, and whether the map reaches there."""
    rows = (y - place[1]) / (place[3] - place[1]) * values.shape[0]
    columns = (x - place[0]) / (place[2] - place[0]) * values.shape[1]
    inside = ((rows >= 0) & (rows <= values.shape[0]))[:, None] & ((columns >= 0) & (columns <= values.shape[1]))
    (top, down), (left, right) = _between(rows, values.shape[0]), _between(columns, values.shape[1])
    by_row = values[top[0]] * (1 - down)[:, None] + values[top[1]] * down[:, None]
    found = by_row[:, left[0]] * (1 - right) + by_row[:, left[1]] * right
    return np.where(inside, found, 0), inside


def _between(at: np.ndarray, count: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Of places in cells the two cells around each, and how near the second is."""
    at = np.clip(at - 0.5, 0, count - 1)
    first = np.minimum(at.astype(int), max(count - 2, 0))
    return (first, np.minimum(first + 1, count - 1)), (at - first).astype(np.float32)


@cache
def _ramp() -> np.ndarray:
    """256 colours from dark violet over red to light yellow, in equal steps of lightness, float32 `[256, 3]`.

    Lightness and hue are even in OKLab (Ottosson 2020), which is perceptually uniform.
    """
    at = np.linspace(0, 1, 256)
    light, chroma = 0.38 + 0.57 * at, 0.10 + 0.11 * np.sin(np.pi * at**0.8)
    hue = np.radians(300 + 165 * at)
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    cones = (
        np.stack(
            [
                light + 0.3963377774 * a + 0.2158037573 * b,
                light - 0.1055613458 * a - 0.0638541728 * b,
                light - 0.0894841775 * a - 1.2914855480 * b,
            ],
            -1,
        )
        ** 3
    )
    linear = cones @ np.array(
        [
            [4.0767416621, -1.2684380046, -0.0041960863],
            [-3.3077115913, 2.6097574011, -0.7034186147],
            [0.2309699292, -0.3413193965, 1.7076147010],
        ]
    )
    linear = linear.clip(0, 1)
    found = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (255 * found).astype(np.float32)
