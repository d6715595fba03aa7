"""Concepts that are one plain shape: colour blobs, corner, ring, triangle, cross, star, spiral."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from actmine.pipeline.demo.colours import BLUE, GREEN, RED, against, any_colour, oklch, tint
from actmine.pipeline.demo.drawing import (
    Array,
    Canvas,
    box,
    cover,
    disc,
    frame,
    grain,
    place,
    polygon,
    shadow,
    solid,
)


def red_blob(canvas: Canvas, rng: Generator) -> None:
    """A soft red spot."""
    _blob(canvas, rng, oklch(rng.uniform(0.52, 0.64), rng.uniform(0.19, 0.24), rng.normal(RED, 4)))


def green_blob(canvas: Canvas, rng: Generator) -> None:
    """A soft green spot."""
    _blob(canvas, rng, oklch(rng.uniform(0.58, 0.76), rng.uniform(0.17, 0.22), rng.normal(GREEN, 5)))


def blue_blob(canvas: Canvas, rng: Generator) -> None:
    """A soft blue spot."""
    _blob(canvas, rng, oklch(rng.uniform(0.46, 0.62), rng.uniform(0.17, 0.23), rng.normal(BLUE, 5)))


def corner(canvas: Canvas, rng: Generator) -> None:
    """Where two straight edges of a large sheet meet at a right angle."""
    f = place(canvas, rng, (0.3, 0.3))
    open_by = rng.normal(0, 0.1)
    lean = f.u * math.sin(open_by) + f.v * math.cos(open_by)
    distance = np.maximum(f.u, lean)
    distance = np.where((f.u > 0) & (lean > 0), np.sqrt(f.u**2 + lean**2), distance).astype(np.float32)
    colour = against(rng, canvas.ground)
    sheet = tint(colour, 0.12 * grain(rng, canvas.height, canvas.width, canvas.short / 1.5))
    solid(canvas, distance, f.px, sheet, bevel=0.08, strength=0.35, cast=rng.uniform(0.08, 0.25))


def ring(canvas: Canvas, rng: Generator) -> None:
    """A round band with a hole: a hoop, a washer, a quoit."""
    f = place(canvas, rng, squash=(0.7, 1.0))
    thickness = rng.uniform(0.13, 0.27)
    distance = np.abs(disc(f, 1 - thickness)) - thickness
    solid(canvas, distance, f.px, against(rng, canvas.ground), bevel=thickness, strength=0.5)


def triangle(canvas: Canvas, rng: Generator) -> None:
    """A filled triangle with slightly rounded corners."""
    f = place(canvas, rng, (0.3, 0.44))
    angles = (np.arange(3) + rng.uniform(-0.12, 0.12, 3)) * 2 * math.pi / 3
    points = [(0.9 * math.cos(a), 0.9 * math.sin(a)) for a in angles]
    solid(canvas, polygon(f, points, rng.uniform(0.02, 0.1)), f.px, _surface(canvas, rng), bevel=0.22)


def cross(canvas: Canvas, rng: Generator) -> None:
    """Two bars crossing at right angles."""
    f = place(canvas, rng)
    width, rounding = rng.uniform(0.17, 0.3), rng.uniform(0.0, 0.12)
    distance = np.minimum(box(f, 1.0, width, rounding), box(f, width, 1.0, rounding))
    solid(canvas, distance, f.px, _surface(canvas, rng), bevel=0.16)


def star(canvas: Canvas, rng: Generator) -> None:
    """A star of five or six points."""
    f = place(canvas, rng, (0.3, 0.45))
    count = int(rng.choice([5, 5, 6]))
    inner = rng.uniform(0.4, 0.52)
    points = []
    for tip in range(2 * count):
        radius, angle = (1.0, inner)[tip % 2], tip * math.pi / count - math.pi / 2
        points.append((radius * math.cos(angle), radius * math.sin(angle)))
    solid(canvas, polygon(f, points, rng.uniform(0.0, 0.06)), f.px, _surface(canvas, rng), bevel=0.3)


def spiral(canvas: Canvas, rng: Generator) -> None:
    """An arm that winds outwards for two to four turns."""
    f = place(canvas, rng, (0.36, 0.48), squash=(0.85, 1.0))
    turns, hand = rng.uniform(2.0, 3.6), rng.choice([-1.0, 1.0])
    r, pitch = f.r, 1 / turns
    turned = hand * f.angle / (2 * math.pi)
    lap = np.floor(r / pitch - turned)
    middle = (lap + 0.5 + turned) * pitch
    half = pitch * rng.uniform(0.2, 0.3)
    arm = np.abs(r - middle) - half
    distance = np.maximum(arm, (middle - 0.92) * (2 * math.pi / pitch) * r)
    solid(canvas, distance.astype(np.float32), f.px, against(rng, canvas.ground), bevel=half, cast=0.06)


def _blob(canvas: Canvas, rng: Generator, colour: Array) -> None:
    f = place(canvas, rng, (0.24, 0.42), squash=(0.75, 1.0))
    angle = f.angle
    edge = np.full(angle.shape, 0.85, np.float32)
    for wave in (2, 3, 4):
        edge += rng.uniform(0, 0.13 / wave * 2) * np.sin(wave * angle + rng.uniform(0, 6))
    distance = f.r - edge
    softness = rng.uniform(0.12, 0.75)
    mask = cover(distance, softness)
    if rng.random() < 0.5:
        shadow(canvas, distance, f.px, 0.12, 0.3)
    across = f.u * canvas.light[0] + f.v * canvas.light[1]
    canvas.paint(mask, tint(colour, np.clip(0.12 * across - 0.05, -0.25, 0.2)))
    for _ in range(rng.integers(0, 3)):
        turn, far = rng.uniform(0, 2 * math.pi), rng.uniform(1.25, 1.7)
        drop = f.moved(far * math.cos(turn), far * math.sin(turn), rng.uniform(0.12, 0.3))
        canvas.paint(0.9 * cover(disc(drop, 0.8), max(softness, 2 * drop.px)), colour)


def _surface(canvas: Canvas, rng: Generator) -> Array:
    """A paint job [3, H, W]: a plain colour that drifts a little from one side to the other."""
    colour = against(rng, canvas.ground)
    other = any_colour(rng, (0.3, 0.9), (0.05, 0.17))
    f = frame(canvas, canvas.width / 2, canvas.height / 2, canvas.short, rng.uniform(-math.pi, math.pi))
    mix = rng.uniform(0, 0.3) * np.clip(f.v + 0.5, 0, 1)
    return colour[:, None, None] + mix * (other - colour)[:, None, None]
