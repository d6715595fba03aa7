"""Concepts that are made of something: honeycomb, bricks, wood, leopard skin, fur, clouds, lights."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from actmine.pipeline.demo.colours import (
    BLUE,
    ORANGE,
    oklch,
    ramp,
    tint,
)
from actmine.pipeline.demo.drawing import (
    Canvas,
    cover,
    disc,
    frame,
    grain,
    hashed,
    sample,
)
from actmine.pipeline.demo.surfaces import lay, surface


def honeycomb(canvas: Canvas, rng: Generator) -> None:
    """Hexagonal cells with lit walls, often in honey colours."""
    f = surface(canvas, rng, rng.uniform(-math.pi, math.pi), bend=0.05)
    size = rng.uniform(0.12, 0.24)
    u, v = f.u / size, f.v / size
    root = math.sqrt(3)
    best_u, best_v = u - np.round(u), v - root * np.round(v / root)
    cell_u, cell_v = np.round(u), np.round(v / root) * 2
    other_u = u - np.floor(u) - 0.5
    other_v = v - root * (np.floor(v / root) + 0.5)
    closer = other_u**2 + other_v**2 < best_u**2 + best_v**2
    cell_u = np.where(closer, np.floor(u) + 0.5, cell_u)
    cell_v = np.where(closer, np.floor(v / root) * 2 + 1, cell_v)
    best_u, best_v = np.where(closer, other_u, best_u), np.where(closer, other_v, best_v)
    au, av = np.abs(best_u), np.abs(best_v)
    inside = 0.5 - np.maximum(au, au * 0.5 + av * (root / 2))
    hue = rng.normal(78, 9) if rng.random() < 0.6 else rng.uniform(0, 360)
    wall = oklch(rng.uniform(0.72, 0.92), rng.uniform(0.06, 0.13), hue + 8)
    deep = oklch(rng.uniform(0.34, 0.52), rng.uniform(0.07, 0.13), hue - 14)
    vary = 0.55 * (hashed(np.round(2 * cell_u), cell_v) - 0.4)
    lit = best_u * canvas.light[0] + best_v * canvas.light[1]
    cells = tint(deep, np.clip(vary - 0.7 * lit, -0.6, 0.6))
    mask = cover(inside - rng.uniform(0.07, 0.12), 1.6 * f.px / size)
    lay(canvas, rng, cells + mask * (wall[:, None, None] - cells), patch=0.25)


def brick_wall(canvas: Canvas, rng: Generator) -> None:
    """Courses of bricks, each of its own shade, in mortar."""
    f = surface(canvas, rng, rng.normal(0, 0.12), bend=0.02)
    height = rng.uniform(0.09, 0.17)
    length = height * rng.uniform(2.0, 2.9)
    v = f.v / height
    row = np.floor(v)
    u = f.u / length + 0.5 * (row % 2)
    column = np.floor(u)
    gap = np.minimum(np.abs(u - column - 0.5) * length, 9) - length / 2
    rise = np.abs(v - row - 0.5) * height - height / 2
    inside = np.maximum(gap, rise) + height * rng.uniform(0.07, 0.11)
    style = rng.random()
    hue, chroma = (rng.normal(40, 8), rng.uniform(0.08, 0.13)) if style < 0.75 else (rng.uniform(50, 260), 0.02)
    brick = oklch(rng.uniform(0.44, 0.62), chroma, hue)
    mortar = oklch(rng.uniform(0.7, 0.88), 0.02, hue + 20)
    rough = grain(rng, canvas.height, canvas.width, 4, 2)
    bricks = tint(brick, 0.5 * (hashed(row, column) - 0.5) + 0.07 * rough)
    lit = np.clip(1 + inside / (0.22 * height), 0, 1) * np.where(rise > gap, np.sign(v - row - 0.5), 0)
    bricks = tint(bricks, -0.3 * lit)
    mortars = tint(mortar, 0.09 * rough - 0.1)
    mask = cover(inside, 1.5 * f.px)
    lay(canvas, rng, mortars + mask * (bricks - mortars), patch=0.1)


def wood_grain(canvas: Canvas, rng: Generator) -> None:
    """Planks with growth rings cut lengthwise, a knot now and then."""
    f = surface(canvas, rng, rng.uniform(-math.pi, math.pi), bend=0.03)
    knot_u, knot_v = rng.uniform(-0.3, 0.3, 2)
    pull = np.exp(-(((f.u - knot_u) / 0.16) ** 2 + ((f.v - knot_v) / 0.09) ** 2)) * rng.uniform(0, 1.2)
    texture = rng.standard_normal((96, 16), np.float32)
    slow = sample(texture, f.u * 2.2 + 40, f.v * 5 + 40)
    rings = f.v * rng.uniform(11, 20) + 0.75 * slow + 1.6 * pull
    tooth = (rings + rng.uniform()) % 1
    line = tooth**2.2 * np.clip((1 - tooth) / 0.13, 0, 1)
    fibre = sample(rng.standard_normal((256, 64), np.float32), f.u * 9 + 90, f.v * 95 + 400)
    hue = rng.normal(62, 9)
    light = oklch(rng.uniform(0.6, 0.82), rng.uniform(0.06, 0.1), hue)
    dark = oklch(rng.uniform(0.32, 0.46), rng.uniform(0.05, 0.09), hue - 12)
    lay(canvas, rng, ramp([light, dark], np.clip(0.85 * line + 0.09 * fibre + 0.25 * pull, 0, 1)), patch=0.1)


def leopard_spots(canvas: Canvas, rng: Generator) -> None:
    """Dark rosettes with a warm heart on a tawny coat."""
    f = surface(canvas, rng, rng.uniform(-math.pi, math.pi), bend=0.1)
    size = rng.uniform(0.15, 0.25)
    u, v = f.u / size, f.v / size
    first = np.full(canvas.rgb.shape[1:], 9, np.float32)
    angle, salt = np.zeros_like(first), np.zeros_like(first)
    for du in (-1, 0, 1):
        for dv in (-1, 0, 1):
            cu, cv = np.floor(u) + du, np.floor(v) + dv
            pu = u - cu - 0.5 - 0.62 * (hashed(cu, cv) - 0.5)
            pv = v - cv - 0.5 - 0.62 * (hashed(cv, cu + 31) - 0.5)
            distance = np.sqrt(pu * pu + pv * pv)
            nearer = distance < first
            first = np.where(nearer, distance, first)
            angle = np.where(nearer, np.arctan2(pv, pu), angle)
            salt = np.where(nearer, hashed(cu + 7, cv + 3), salt)
    wobble = 0.05 * np.sin(2 * angle + 20 * salt) + 0.04 * np.sin(5 * angle + 50 * salt)
    radius = 0.39 + 0.1 * (salt - 0.5) + wobble
    soft = max(1.5 * f.px / size, 0.05)
    spot = cover(first - radius, soft)
    heart = cover(first - radius + 0.17, soft * 1.5)
    gap = np.clip(1.6 - 2.6 * np.abs(np.sin(angle * 1.5 + 30 * salt)), 0, 1)
    hue = rng.normal(72, 8)
    coat = oklch(rng.uniform(0.68, 0.86), rng.uniform(0.06, 0.12), hue)
    warm = oklch(rng.uniform(0.5, 0.62), rng.uniform(0.08, 0.12), hue - 12)
    ink = oklch(rng.uniform(0.18, 0.28), 0.03, hue - 20)
    hairs = sample(rng.standard_normal((64, 256), np.float32), f.u * 110 + 400, f.v * 14 + 90)
    fur = tint(coat, 0.08 * hairs)
    fur += heart * (warm[:, None, None] - fur)
    fur += (spot * (1 - heart) * (1 - 0.85 * gap)) * (tint(ink, 0.06 * hairs) - fur)
    lay(canvas, rng, fur, patch=0.1)


def fur(canvas: Canvas, rng: Generator) -> None:
    """Combed hair: fine strands along a slowly turning direction."""
    f = surface(canvas, rng, rng.uniform(-math.pi, math.pi), bend=0.3)
    total = np.zeros(canvas.rgb.shape[1:], np.float32)
    for fine, weight in ((26, 0.35), (52, 0.4), (90, 0.35)):
        texture = rng.standard_normal((64, 512), np.float32)
        sway = 0.02 * np.sin(f.v * rng.uniform(5, 9) + rng.uniform(0, 6))
        total += weight * sample(texture, (f.u + sway) * fine + 400, f.v * fine * 0.09 + 60)
    tufts = grain(rng, canvas.height, canvas.width, canvas.short / 5, 2)
    hue, chroma = (rng.normal(62, 14), rng.uniform(0.03, 0.1)) if rng.random() < 0.7 else (rng.uniform(0, 360), 0.02)
    dark = oklch(rng.uniform(0.16, 0.36), chroma * 0.8, hue - 10)
    middle = oklch(rng.uniform(0.5, 0.66), chroma, hue)
    light = oklch(rng.uniform(0.8, 0.94), chroma * 0.6, hue + 10)
    lay(canvas, rng, ramp([dark, middle, light], np.clip(0.5 + 0.3 * total + 0.16 * tufts, 0, 1)), patch=0.0)


def clouds(canvas: Canvas, rng: Generator) -> None:
    """Cumulus in a sky: noon blue, dusk or overcast."""
    height, width = canvas.rgb.shape[1:]
    down = frame(canvas, width / 2, height / 2, height).v + 0.5 + np.zeros((height, width), np.float32)
    mood = rng.random()
    if mood < 0.65:
        stops = [oklch(rng.uniform(0.48, 0.64), 0.13, BLUE - 8), oklch(0.85, 0.05, BLUE - 30)]
        bright, grey = oklch(0.98, 0.01, 90), oklch(0.72, 0.03, BLUE)
    elif mood < 0.85:
        stops = [oklch(0.42, 0.09, rng.normal(290, 12)), oklch(0.8, 0.11, rng.normal(ORANGE, 8))]
        bright, grey = oklch(0.9, 0.08, rng.normal(45, 12)), oklch(0.5, 0.07, 320)
    else:
        stops = [oklch(0.55, 0.03, BLUE), oklch(0.76, 0.02, BLUE)]
        bright, grey = oklch(0.94, 0.01, 90), oklch(0.56, 0.02, BLUE)
    canvas.rgb = ramp(stops, np.clip(down, 0, 1))
    cell = canvas.short / rng.uniform(1.6, 2.6)
    billow = grain(rng, height, width, cell, 6)
    billow += rng.uniform(-0.2, 0.25)
    ahead = np.roll(billow, (round(0.05 * height), round(0.02 * width)), (0, 1))
    puff = np.clip((billow - 0.02) / 0.42, 0, 1)
    lit = np.clip(0.72 + 0.75 * (billow - ahead) - 0.22 * np.clip(billow - 0.3, 0, 1), 0, 1)
    canvas.paint(puff * puff * (3 - 2 * puff) * 0.96, ramp([grey, bright], lit))


def lights_out_of_focus(canvas: Canvas, rng: Generator) -> None:
    """Bokeh: translucent discs of light over a dark evening."""
    height, width = canvas.rgb.shape[1:]
    hue = rng.uniform(0, 360)
    drift = grain(rng, height, width, canvas.short / 2, 2)
    night = [oklch(0.13, 0.03, hue), oklch(0.34, 0.07, hue + rng.normal(0, 50))]
    canvas.rgb = ramp(night, np.clip(0.5 + 0.4 * drift, 0, 1))
    size = rng.uniform(0.06, 0.13)
    warm = rng.random() < 0.6
    for _ in range(rng.integers(18, 34)):
        f = frame(canvas, rng.uniform(0, width), rng.uniform(0, height), canvas.short)
        radius = size * rng.uniform(0.6, 1.35)
        d = disc(f, radius)
        tone = rng.normal(68, 22) if warm and rng.random() < 0.75 else rng.uniform(0, 360)
        colour = oklch(rng.uniform(0.68, 0.9), rng.uniform(0.07, 0.17), tone)[:, None, None]
        rim = 0.75 + 0.4 * np.clip(1 + d / (0.3 * radius), 0, 1)
        canvas.rgb += (rng.uniform(0.25, 0.75) * cover(d, 0.02) * rim) * colour * (1 - 0.7 * canvas.rgb)
    np.clip(canvas.rgb, 0, 1, out=canvas.rgb)
