"""Concepts that are printed patterns: gratings, stripes, checkerboards, grids, waves, letters."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont

from actmine.pipeline.demo.colours import (
    Array,
    any_colour,
    oklch,
    pair,
    tint,
)
from actmine.pipeline.demo.drawing import (
    Canvas,
    cover,
    hashed,
)
from actmine.pipeline.demo.surfaces import blend, lay, surface


def horizontal_grating(canvas: Canvas, rng: Generator) -> None:
    """Parallel bands that run from left to right."""
    _grating(canvas, rng, rng.normal(0, 0.07))


def vertical_grating(canvas: Canvas, rng: Generator) -> None:
    """Parallel bands that run from top to bottom."""
    _grating(canvas, rng, math.pi / 2 + rng.normal(0, 0.07))


def diagonal_grating(canvas: Canvas, rng: Generator) -> None:
    """Parallel bands at about 45 degrees, rising or falling."""
    _grating(canvas, rng, rng.choice([-1, 1]) * math.pi / 4 + rng.normal(0, 0.08))


def colour_stripes(canvas: Canvas, rng: Generator) -> None:
    """Awning stripes of four to six colours and uneven widths, at any angle."""
    f = surface(canvas, rng, rng.uniform(-math.pi, math.pi), bend=0.06)
    count = rng.integers(4, 7)
    hue = rng.uniform(0, 360)
    bands = [
        any_colour(rng, (0.45, 0.93), (0.09, 0.2), (hue + i * 360 / count - 30, hue + i * 360 / count + 30))
        for i in rng.permutation(count)
    ]
    widths = rng.uniform(0.5, 1.5, count)
    edges = np.concatenate([[0], np.cumsum(widths / widths.sum())])
    period = rng.uniform(0.4, 0.7)
    phase = (f.v / period + rng.uniform()) % 1
    soft = 1.4 * f.px / period
    stripes = np.empty_like(canvas.rgb)
    stripes[:] = bands[-1][:, None, None]
    for index in range(count):
        inside = np.minimum(phase - edges[index], edges[index + 1] - phase)
        mask = cover(-inside, soft)
        stripes += mask * (bands[index][:, None, None] - stripes)
    lay(canvas, rng, stripes)


def checkerboard(canvas: Canvas, rng: Generator) -> None:
    """Squares of two colours, turned at random."""
    f = surface(canvas, rng, rng.uniform(-math.pi, math.pi), bend=0.03)
    size = rng.uniform(0.08, 0.19)
    edge = 1.3 * f.px / size
    along, across = _square_wave(f.u / size, edge), _square_wave(f.v / size, edge)
    mask = along * across + (1 - along) * (1 - across)
    dark, light = pair(rng)
    lay(canvas, rng, blend(dark, light, mask))


def grid(canvas: Canvas, rng: Generator) -> None:
    """Thin lines crossing at right angles over a plain ground: wire mesh, tiles, graph paper."""
    f = surface(canvas, rng, rng.uniform(-math.pi, math.pi), bend=0.04)
    size, width = rng.uniform(0.11, 0.23), rng.uniform(0.1, 0.2)
    u, v = f.u / size, f.v / size
    near = np.minimum(np.abs(u - np.round(u)), np.abs(v - np.round(v)))
    mask = cover(near - (width / 2), 1.4 * f.px / size)
    colours = pair(rng)
    line, tile = colours if rng.random() < 0.5 else colours[::-1]
    vary = 0.1 * (hashed(np.floor(u + 0.5), np.floor(v + 0.5)) - 0.5)
    tiles = tint(tile, vary)
    lay(canvas, rng, tiles + mask * (line[:, None, None] - tiles))


def waves(canvas: Canvas, rng: Generator) -> None:
    """Parallel lines that undulate, like water, sand or a moiré."""
    f = surface(canvas, rng, rng.uniform(-math.pi, math.pi), bend=0.04)
    period, length = rng.uniform(0.12, 0.22), rng.uniform(0.3, 0.5)
    swing = rng.uniform(0.3, 0.45) * length * 0.5
    v = f.v + swing * np.sin(2 * math.pi * f.u / length + rng.uniform(0, 6))
    crest = 0.5 + 0.5 * np.sin(2 * math.pi * v / period)
    dark, light = pair(rng)
    if rng.random() < 0.4:
        dark, light = oklch(0.36, 0.09, rng.normal(235, 15)), oklch(0.88, 0.06, rng.normal(215, 15))
    sharp = rng.uniform(1, 4)
    lay(canvas, rng, blend(dark, light, np.clip((crest - 0.5) * sharp + 0.5, 0, 1)))


_LETTERS = "aabcdeeefghiijklmnnooprrssttuuvwxyzABCDEFGHKLMNPRSTUVWX0123456789&?"


def letters(canvas: Canvas, rng: Generator) -> None:
    """Lines of printed letters on paper or a sign, without meaning."""
    height, width = canvas.rgb.shape[1:]
    size = canvas.short * rng.uniform(0.12, 0.3)
    font = ImageFont.load_default(size)
    side = math.ceil(1.25 * math.hypot(height, width))
    sheet = Image.new("L", (side, side))
    draw = ImageDraw.Draw(sheet)
    for line in range(math.ceil(side / size)):
        words = []
        for _ in range(math.ceil(side / size)):
            words.append("".join(rng.choice(list(_LETTERS), rng.integers(2, 8))))
        at = (-rng.uniform(0, 2) * size, line * size * 1.22)
        draw.text(at, " ".join(words), fill=255, font=font)
    turned = sheet.rotate(rng.normal(0, 12), Image.Resampling.BICUBIC)
    left, top = (side - width) // 2, (side - height) // 2
    mask = np.asarray(turned.crop((left, top, left + width, top + height)), np.float32) / 255
    dark, light = pair(rng)
    ink, paper = (dark, light) if rng.random() < 0.7 else (light, dark)
    lay(canvas, rng, blend(paper, ink, mask), patch=0.25)


def _grating(canvas: Canvas, rng: Generator, angle: float) -> None:
    f = surface(canvas, rng, angle, bend=0.02)
    period = rng.uniform(0.07, 0.2)
    wave = np.sin(2 * math.pi * f.v / period + rng.uniform(0, 6))
    hard = float(rng.choice([0.5, 1.2, 4.0]))
    duty = rng.uniform(-0.3, 0.3)
    dark, light = pair(rng)
    lay(canvas, rng, blend(dark, light, np.clip(0.5 + hard * (wave + duty), 0, 1)))


def _square_wave(t: Array, edge: float) -> Array:
    """1 on even cells and 0 on odd ones [H, W], with edges `edge` of a cell wide."""
    triangle = np.abs(t % 2 - 1) - 0.5
    return cover(triangle, edge)
