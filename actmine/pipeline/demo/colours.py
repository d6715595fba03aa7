"""Colours that sit well together: picked in OKLCH, where equal steps look equal, and handed out as sRGB."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.floating]

RED, ORANGE, YELLOW, GREEN, BLUE, PURPLE = 27.0, 58.0, 95.0, 145.0, 258.0, 305.0


def oklch(lightness: float, chroma: float, hue: float) -> Array:
    """The sRGB colour [3] in 0..1 of an OKLCH triple; hue in degrees; out-of-gamut colours are clipped.

    Matrices from Björn Ottosson, "A perceptual color space for image processing" (2020).
    """
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    return np.array([_gamma(min(1.0, max(0.0, value))) for value in linear], np.float32)


def _gamma(value: float) -> float:
    return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055


def any_colour(
    rng: Generator,
    lightness: tuple[float, float] = (0.4, 0.85),
    chroma: tuple[float, float] = (0.06, 0.19),
    hue: tuple[float, float] = (0.0, 360.0),
) -> Array:
    """A random sRGB colour [3] within ranges of lightness, chroma and hue (degrees)."""
    return oklch(rng.uniform(*lightness), rng.uniform(*chroma), rng.uniform(*hue))


def against(rng: Generator, ground: float, chroma: tuple[float, float] = (0.08, 0.2)) -> Array:
    """A random colour [3] that stands out from a ground of OKLCH lightness `ground`, lighter or darker."""
    darker = ground > 0.62 or (ground > 0.45 and rng.random() < 0.5)
    span = (max(0.24, ground - 0.45), ground - 0.2) if darker else (ground + 0.24, min(0.95, ground + 0.5))
    return any_colour(rng, span, chroma)


def pair(rng: Generator) -> tuple[Array, Array]:
    """A dark and a light colour with clear contrast, of related or of opposite hues."""
    hue = rng.uniform(0, 360)
    other = hue + (rng.normal(0, 25) if rng.random() < 0.5 else 180 + rng.normal(0, 40))
    dark = oklch(rng.uniform(0.25, 0.52), rng.uniform(0.03, 0.15), hue)
    light = oklch(rng.uniform(0.76, 0.95), rng.uniform(0.02, 0.14), other)
    return dark, light


def tint(colour: Array, amount: Array | float) -> Array:
    """`colour` ([3] or [3, H, W]) moved towards white (`amount` [H, W] to 1) or black (to -1)."""
    if colour.ndim == 1:
        colour = colour[:, None, None]
    amount = np.asarray(amount, np.float32)
    return np.where(amount > 0, colour + (1 - colour) * amount, colour * (1 + amount)).astype(np.float32)


def ramp(stops: list[Array], position: Array) -> Array:
    """The colours [3, H, W] of `position` [H, W] in 0..1 along a gradient through `stops` ([3] each)."""
    at = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(position, at, [stop[channel] for stop in stops]) for channel in range(3)]).astype(
        np.float32
    )
