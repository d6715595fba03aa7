"""What patterns and materials share: a gently bent frame over the picture, and how a surface is laid."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from actmine.pipeline.demo.colours import (
    Array,
    tint,
)
from actmine.pipeline.demo.drawing import (
    Canvas,
    Frame,
    box,
    cover,
    disc,
    frame,
    grain,
    shadow,
)


def surface(canvas: Canvas, rng: Generator, angle: float, bend: float) -> Frame:
    """A frame over the whole picture in units of the shorter side, gently bent so that no line is ruled."""
    f = frame(canvas, canvas.width / 2, canvas.height / 2, canvas.short, angle)
    canvas.pose["degrees"] = round(math.degrees(angle), 1)
    shift = rng.uniform(-1, 1, 2)
    bends = [(bend * rng.uniform(0.2, 1.0)) * grain(rng, canvas.height, canvas.width, canvas.short) for _ in range(2)]
    return Frame(f.u + bends[0] + shift[0], f.v + bends[1] + shift[1], f.px)


def lay(canvas: Canvas, rng: Generator, texture: Array, patch: float = 0.35) -> None:
    """Covers the picture with a lit `texture` [3, H, W]; with probability `patch`, a part of it only."""
    height, width = canvas.rgb.shape[1:]
    light = 0.13 * grain(rng, height, width, canvas.short / 1.3)
    lit = tint(texture, np.clip(light, -0.4, 0.3))
    if rng.random() >= patch:
        canvas.rgb = lit
        return
    x, y = (side / 2 + rng.uniform(-0.08, 0.08) * canvas.short for side in (width, height))
    f = frame(canvas, x, y, canvas.short * rng.uniform(0.36, 0.5), rng.normal(0, 0.2))
    shape = disc(f, 1.0) if rng.random() < 0.4 else box(f, rng.uniform(0.85, 1.3), rng.uniform(0.8, 1.1), 0.15)
    shadow(canvas, shape, f.px, 0.1)
    canvas.paint(cover(shape, 1.5 * f.px), lit)


def blend(first: Array, second: Array, mask: Array) -> Array:
    """The colours [3, H, W] from `first` ([3]), where `mask` [H, W] is 0, to `second`, where it is 1."""
    return first[:, None, None] + mask * (second - first)[:, None, None]
