"""Where things stand: out-of-focus grounds with colour drifts and faint clutter, and the camera's finish."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageFilter

from actmine.pipeline.demo.colours import any_colour, oklch, ramp
from actmine.pipeline.demo.drawing import Array, Canvas, box, cover, disc, frame, grain, segment


def ground(rng: Generator, height: int, width: int) -> Canvas:
    """A fresh canvas with a background: a colour gradient, drifting hues, perhaps a floor or far lights."""
    lightness = rng.uniform(0.58, 0.9) if rng.random() < 0.68 else rng.uniform(0.28, 0.45)
    hue, chroma = rng.uniform(0, 360), rng.uniform(0.03, 0.1)
    near = oklch(lightness - 0.1, chroma, hue)
    far = oklch(min(0.97, lightness + 0.1), chroma * rng.uniform(0.4, 1.2), hue + rng.normal(0, 40))
    angle = rng.uniform(0, 2 * math.pi)
    canvas = Canvas(np.zeros((3, height, width), np.float32), ground=lightness)
    lit = rng.uniform(-2.6, -0.5)
    canvas.light = (math.cos(lit), math.sin(lit))
    f = frame(canvas, width / 2, height / 2, canvas.short, angle)
    canvas.rgb = ramp([near, far], np.clip(f.v + 0.5, 0, 1))
    drift = 0.045 * grain(rng, height, width, canvas.short / 2.2, 2)
    warm = np.array([1.0, 0.1, -1.0], np.float32)[:, None, None]
    canvas.rgb += warm * 0.03 * grain(rng, height, width, canvas.short / 1.8) + drift
    kind = rng.choice(["plain", "floor", "lights", "cloth", "clutter"], p=[0.2, 0.2, 0.17, 0.13, 0.3])
    if kind == "floor":
        level = frame(canvas, width / 2, height * rng.uniform(0.55, 0.85), canvas.short, rng.normal(0, 0.06))
        floor = oklch(lightness - rng.uniform(0.08, 0.2), chroma, hue + rng.normal(0, 60))
        canvas.paint(0.8 * cover(-level.v, rng.uniform(0.02, 0.12)), floor)
    elif kind == "lights":
        for _ in range(rng.integers(3, 9)):
            spot = frame(canvas, rng.uniform(0, width), rng.uniform(0, height), canvas.short)
            mask = cover(disc(spot, rng.uniform(0.05, 0.14)), rng.uniform(0.05, 0.1))
            canvas.paint(rng.uniform(0.08, 0.22) * mask, any_colour(rng, (0.75, 0.95), (0.02, 0.1)))
    elif kind == "cloth":
        canvas.rgb += 0.035 * grain(rng, height, width, rng.uniform(1.5, 4.0))
    elif kind == "clutter":
        _clutter(canvas, rng, lightness)
    np.clip(canvas.rgb, 0.02, 0.98, out=canvas.rgb)
    return canvas


def _clutter(canvas: Canvas, rng: Generator, lightness: float) -> None:
    for _ in range(rng.integers(2, 6)):
        f = frame(
            canvas,
            rng.uniform(0, canvas.width),
            rng.uniform(0, canvas.height),
            canvas.short * rng.uniform(0.1, 0.32),
            rng.uniform(0, math.pi),
        )
        shape = rng.integers(3)
        if shape == 0:
            distance = box(f, 1.0, rng.uniform(0.3, 1.0), 0.2)
        elif shape == 1:
            distance = disc(f, 0.8)
        else:
            distance = segment(f, (-1.6, 0), (1.6, 0), rng.uniform(0.1, 0.35))
        colour = any_colour(rng, (max(0.1, lightness - 0.2), min(0.98, lightness + 0.2)), (0.02, 0.1))
        canvas.paint(rng.uniform(0.2, 0.5) * cover(distance, max(3 * f.px, rng.uniform(0.1, 0.5))), colour)


def finish(canvas: Canvas, rng: Generator) -> Image.Image:
    """The photograph of a canvas: lighting, vignette, focus and a little sensor noise; sRGB, 8 bits."""
    height, width = canvas.height, canvas.width
    picture = canvas.rgb
    f = frame(canvas, width / 2, height / 2, math.hypot(height, width) / 2)
    falloff = 1 - rng.uniform(0.05, 0.3) * f.r**2.5
    slope = 1 + rng.uniform(0, 0.16) * (f.u * canvas.light[0] + f.v * canvas.light[1])
    balance = 1 + rng.normal(0, 0.02, 3).astype(np.float32)
    picture = picture * (falloff * slope * rng.uniform(0.92, 1.08)) * balance[:, None, None]
    image = Image.fromarray(_bytes(picture))
    blur = rng.uniform(0.8, 1.7) if rng.random() < 0.14 else rng.uniform(0.0, 0.5)
    canvas.pose["blur"] = round(blur, 2)
    if blur > 0.25:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    noise = rng.standard_normal((height, width, 1), np.float32) * rng.uniform(0.6, 3.2)
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def _bytes(picture: Array) -> np.ndarray:
    return (picture.transpose(1, 2, 0).clip(0, 1) * 255 + 0.5).astype(np.uint8)
