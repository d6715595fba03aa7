"""Antialiased drawing in numpy: a canvas, local frames, signed distances, shading, shadows and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from PIL import Image

from actmine.pipeline.demo.colours import Array, tint


@dataclass(slots=True)
class Canvas:
    """A picture being painted: `rgb` is [3, H, W] in 0..1; `light` points to the light, in image axes."""

    rgb: Array
    light: tuple[float, float] = (-0.6, -0.8)
    ground: float = 0.6  # OKLCH lightness of the background, so that what is painted can stand out
    pose: dict[str, float] = field(default_factory=dict)

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.rgb.shape[1]

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return self.rgb.shape[2]

    @property
    def short(self) -> int:
        """Pixels of the shorter side."""
        return min(self.height, self.width)

    def paint(self, mask: Array, colour: Array) -> None:
        """Lays `colour` ([3] or [3, H, W]) over the picture where `mask` [H, W] is 1, blending below 1."""
        if colour.ndim == 1:
            colour = colour[:, None, None]
        self.rgb += mask * (colour - self.rgb)

    def shade(self, amount: Array) -> None:
        """Lightens (to 1) or darkens (to -1) the picture by `amount` [H, W]."""
        self.rgb = tint(self.rgb, amount)


@dataclass(frozen=True, slots=True)
class Frame:
    """Local coordinates of something to draw: `u` right, `v` down, 1 is its radius; `px` is one pixel."""

    u: Array
    v: Array
    px: float

    @property
    def r(self) -> Array:
        """Distance from the origin [H, W]."""
        return np.sqrt(self.u * self.u + self.v * self.v)

    @property
    def angle(self) -> Array:
        """Angle around the origin [H, W], -π to π."""
        return np.arctan2(self.v, self.u)

    def moved(self, du: float, dv: float, scale: float = 1.0, turn: float = 0.0) -> Frame:
        """The frame of a part at (`du`, `dv`), `scale` times as large and turned by `turn` radians."""
        c, s = math.cos(turn) / scale, math.sin(turn) / scale
        u, v = self.u - du, self.v - dv
        return Frame(c * u + s * v, c * v - s * u, self.px / scale)


def frame(canvas: Canvas, cx: float, cy: float, radius: float, turn: float = 0.0, squash: float = 1.0) -> Frame:
    """A frame at pixel (`cx`, `cy`), `radius` pixels large, turned by `turn` radians, `squash`ed in u."""
    x = np.arange(canvas.width, dtype=np.float32)[None, :] + 0.5 - cx
    y = np.arange(canvas.height, dtype=np.float32)[:, None] + 0.5 - cy
    c, s = math.cos(turn) / radius, math.sin(turn) / radius
    return Frame((c * x + s * y) / squash, c * y - s * x, 1 / radius)


def place(
    canvas: Canvas,
    rng: Generator,
    radius: tuple[float, float] = (0.24, 0.42),
    turn: float = math.pi,
    squash: tuple[float, float] = (0.85, 1.0),
) -> Frame:
    """A frame at a random pose that keeps most of the thing inside the central square of the picture.

    `radius` is relative to the shorter side, `turn` bounds the rotation in radians.
    """
    size = rng.uniform(*radius)
    slack = max(0.03, 0.42 - 0.85 * size)
    cx = canvas.width / 2 + rng.uniform(-slack, slack) * canvas.short
    cy = canvas.height / 2 + rng.uniform(-slack, slack) * canvas.short
    angle = rng.uniform(-turn, turn)
    canvas.pose.update(x=round(cx, 1), y=round(cy, 1), radius=round(size * canvas.short, 1))
    canvas.pose.update(degrees=round(math.degrees(angle), 1))
    return frame(canvas, cx, cy, size * canvas.short, angle, rng.uniform(*squash))


def disc(f: Frame, radius: float) -> Array:
    """Signed distance [H, W] to a disc."""
    return f.r - radius


def box(f: Frame, a: float, b: float, rounding: float = 0.0) -> Array:
    """Signed distance [H, W] to a box of half sides `a`, `b`."""
    q, p = np.abs(f.u) - (a - rounding), np.abs(f.v) - (b - rounding)
    outside = np.sqrt(np.maximum(q, 0) ** 2 + np.maximum(p, 0) ** 2)
    return outside + np.minimum(np.maximum(q, p), 0) - rounding


def ellipse(f: Frame, a: float, b: float) -> Array:
    """Signed distance [H, W] to an ellipse of half axes `a`, `b`; first order, exact at the edge."""
    k = np.sqrt((f.u / a) ** 2 + (f.v / b) ** 2)
    slope = np.sqrt((f.u / a**2) ** 2 + (f.v / b**2) ** 2)
    return k * (k - 1) / np.maximum(slope, 1e-3)


def segment(f: Frame, start: tuple[float, float], end: tuple[float, float], thickness: float) -> Array:
    """Signed distance [H, W] to a round-ended stroke."""
    (ax, ay), (bx, by) = start, end
    du, dv = bx - ax, by - ay
    along = np.clip(((f.u - ax) * du + (f.v - ay) * dv) / max(du * du + dv * dv, 1e-9), 0, 1)
    return np.sqrt((f.u - ax - along * du) ** 2 + (f.v - ay - along * dv) ** 2) - (thickness / 2)


def polygon(f: Frame, points: list[tuple[float, float]], rounding: float = 0.0) -> Array:
    """Signed distance [H, W] to a polygon (after Inigo Quilez, "2D distance functions")."""
    nearest = np.full(np.broadcast_shapes(f.u.shape, f.v.shape), np.inf, np.float32)
    inside = np.zeros(nearest.shape, bool)
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
        eu, ev = bx - ax, by - ay
        wu, wv = f.u - ax, f.v - ay
        along = np.clip((wu * eu + wv * ev) / (eu * eu + ev * ev), 0, 1)
        nearest = np.minimum(nearest, (wu - along * eu) ** 2 + (wv - along * ev) ** 2)
        crosses = (f.v >= ay) != (f.v >= by)
        inside ^= crosses & ((wu * ev < wv * eu) == (ev > 0))
    return np.where(inside, -np.sqrt(nearest), np.sqrt(nearest)).astype(np.float32) - rounding


def cover(distance: Array, softness: float) -> Array:
    """The mask [H, W] of a signed distance, its edge `softness` wide (give at least one pixel)."""
    t = np.clip(0.5 - distance / softness, 0, 1)
    return t * t * (3 - 2 * t)


def shadow(canvas: Canvas, distance: Array, px: float, reach: float = 0.12, strength: float = 0.4) -> None:
    """Darkens the picture where a thing with this signed distance casts a soft shadow, `reach` away."""
    down, right = (round(-part * reach / px) for part in (canvas.light[1], canvas.light[0]))
    rows = np.clip(np.arange(canvas.height) - down, 0, canvas.height - 1)
    columns = np.clip(np.arange(canvas.width) - right, 0, canvas.width - 1)
    moved = distance[rows[:, None], columns[None, :]]
    canvas.shade(-strength * cover(moved, max(2.5 * reach, 2 * px)))


def relief(canvas: Canvas, distance: Array, px: float, bevel: float, strength: float = 0.4) -> Array:
    """How much light a rounded edge `bevel` wide catches: [H, W] in -strength..strength, for `tint`."""
    across, along = np.gradient(distance / px)
    slope = np.clip(1 + distance / bevel, 0, 1)
    return np.clip(along * canvas.light[0] + across * canvas.light[1], -1, 1) * slope * strength


def solid(
    canvas: Canvas,
    distance: Array,
    px: float,
    colour: Array,
    bevel: float = 0.35,
    strength: float = 0.4,
    cast: float = 0.1,
) -> None:
    """Paints a rounded, lit body with its shadow; `colour` is [3] or [3, H, W], `cast` the shadow's reach."""
    if cast:
        shadow(canvas, distance, px, cast)
    canvas.paint(cover(distance, 1.5 * px), tint(colour, relief(canvas, distance, px, bevel, strength)))


def grain(rng: Generator, height: int, width: int, cell: float, octaves: int = 1) -> Array:
    """Smooth noise [H, W] around 0, mostly within -1..1, with features about `cell` pixels large."""
    total = np.zeros((height, width), np.float32)
    weight = 1.0
    for _ in range(octaves):
        rows, columns = max(2, math.ceil(height / cell) + 2), max(2, math.ceil(width / cell) + 2)
        coarse = Image.fromarray(rng.standard_normal((rows, columns), np.float32))
        left, top = rng.uniform(0, 1, 2)
        window = (left, top, left + min(columns - 1, width / cell), top + min(rows - 1, height / cell))
        total += weight * np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC, window))
        weight, cell = weight / 2, cell / 2
        if cell < 1:
            break
    return total * 0.6


def sample(texture: Array, u: Array, v: Array) -> Array:
    """The values [H, W] of `texture` [h, w] at float columns `u` and rows `v`, wrapped and interpolated."""
    rows, columns = texture.shape
    u0, v0 = np.floor(u), np.floor(v)
    fu, fv = u - u0, v - v0
    left, top = u0.astype(np.int64) % columns, v0.astype(np.int64) % rows
    right, bottom = (left + 1) % columns, (top + 1) % rows
    upper = texture[top, left] * (1 - fu) + texture[top, right] * fu
    lower = texture[bottom, left] * (1 - fu) + texture[bottom, right] * fu
    return (upper * (1 - fv) + lower * fv).astype(np.float32)


def hashed(*cells: Array) -> Array:
    """A repeatable pseudo-random number in 0..1 for every cell of a pattern, from its integer coordinates."""
    mixed = np.zeros(np.broadcast_shapes(*(c.shape for c in cells)), np.uint32)
    for number, cell in enumerate(cells):
        mixed = (mixed ^ (cell.astype(np.int64).astype(np.uint32) + np.uint32(number * 7919))) * np.uint32(2654435761)
        mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(2246822519)
    return ((mixed >> np.uint32(8)) & np.uint32(0xFFFF)).astype(np.float32) / 65535
