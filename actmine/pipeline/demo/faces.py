"""Concepts that look back: a face and an eye, built of lids, lips, hair and light."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from actmine.pipeline.demo.colours import (
    Array,
    any_colour,
    oklch,
    ramp,
    tint,
)
from actmine.pipeline.demo.drawing import (
    Canvas,
    Frame,
    box,
    cover,
    disc,
    ellipse,
    grain,
    place,
    sample,
    segment,
    solid,
)


def face(canvas: Canvas, rng: Generator) -> None:
    """A head with hair, eyes, brows, nose and mouth, in any skin and hair colour."""
    f = place(canvas, rng, (0.33, 0.43), turn=0.3, squash=(0.95, 1.05))
    skin = oklch(rng.uniform(0.42, 0.88), rng.uniform(0.045, 0.085), rng.normal(56, 7))
    hair = oklch(rng.uniform(0.16, 0.75), rng.uniform(0.01, 0.1), rng.normal(58, 16))
    soft = 1.5 * f.px
    body = box(f.moved(0, 1.62), 0.95, 0.6, 0.4)
    solid(canvas, body, f.px, any_colour(rng, (0.3, 0.8), (0.04, 0.16)), bevel=0.4)
    long = rng.random() < 0.45
    back = ellipse(f.moved(0, -0.12), 0.86, 0.98)
    if long:
        back = np.minimum(back, box(f.moved(0, 0.45), 0.84, 0.8, 0.35))
    streaks = sample(rng.standard_normal((64, 128), np.float32), f.angle * 16 + 60, f.r * 1.5 + 9)
    locks = tint(hair, 0.12 * streaks)
    if long or rng.random() < 0.85:
        solid(canvas, back, f.px, locks, bevel=0.3)
    solid(canvas, box(f.moved(0, 0.95), 0.27, 0.36, 0.1), f.px, tint(skin, -0.25), bevel=0.2, cast=0)
    if not long:
        for side in (-1, 1):
            solid(canvas, ellipse(f.moved(side * 0.72, 0.1), 0.14, 0.22), f.px, tint(skin, -0.08), 0.15, cast=0)
    head = np.maximum(ellipse(f, 0.71, 0.95), -9)
    solid(canvas, head, f.px, skin, bevel=0.6, strength=0.3, cast=0.08)
    inside = cover(head, soft)
    for side in (-1, 1):
        cheek = np.exp(-((f.u - side * 0.4) ** 2 + (f.v - 0.34) ** 2) / 0.025)
        canvas.paint(inside * 0.28 * cheek, oklch(0.62, 0.14, 25))
    gaze, iris = rng.normal(0, 0.025, 2), any_colour(rng, (0.3, 0.55), (0.03, 0.12))
    brow_tilt, wide = rng.normal(0, 0.05), rng.uniform(0.14, 0.18)
    for side in (-1, 1):
        _small_eye(canvas, f.moved(side * 0.29, 0.0), gaze, iris, wide)
        brow = segment(f, (side * 0.15, -0.22 + brow_tilt), (side * 0.43, -0.23 - brow_tilt), rng.uniform(0.05, 0.09))
        canvas.paint(0.9 * cover(brow, 2 * soft), tint(hair, -0.35))
    nose = ellipse(f.moved(0.02 * np.sign(-canvas.light[0]), 0.24), 0.1, 0.16)
    canvas.paint(0.35 * cover(nose, 0.12), tint(skin, -0.45))
    canvas.paint(0.3 * cover(ellipse(f.moved(0.03 * np.sign(canvas.light[0]), 0.2), 0.05, 0.12), 0.1), tint(skin, 0.6))
    _mouth(canvas, rng, f)
    if rng.random() < 0.85:
        line = rng.uniform(-0.62, -0.4) + rng.uniform(-0.3, 0.3) * f.u + rng.uniform(0.1, 0.5) * f.u**2
        fringe = np.maximum(ellipse(f.moved(0, -0.03), 0.76, 0.98), (f.v - line).astype(np.float32))
        solid(canvas, fringe, f.px, locks, bevel=0.25, cast=0.04)


def eye(canvas: Canvas, rng: Generator) -> None:
    """An eye close up: lids, lashes, white, fibrous iris, pupil and a catchlight."""
    f = place(canvas, rng, (0.4, 0.52), turn=0.3, squash=(0.95, 1.1))
    skin = oklch(rng.uniform(0.42, 0.86), rng.uniform(0.045, 0.085), rng.normal(56, 8))
    pores = grain(rng, canvas.height, canvas.width, 5, 2)
    height, width = canvas.rgb.shape[1:]
    fold = np.exp(-(((f.v + 0.62 - 0.35 * f.u**2) / 0.1) ** 2))
    socket = np.exp(-(f.u**2 / 1.2 + (f.v / 0.75) ** 2))
    far = 0.16 * grain(rng, height, width, canvas.short / 1.6)
    canvas.rgb = tint(skin, np.clip(0.03 * pores + far - 0.28 * fold - 0.22 * socket, -0.7, 0.4))
    lift = rng.uniform(0.42, 0.62)
    bow = (1 + lift**2) / (2 * lift)
    u, v = f.u, f.v
    upper = np.sqrt(u**2 + (v - (bow - lift)) ** 2) - bow
    lower = np.sqrt(u**2 + (v + (bow - lift)) ** 2) - bow
    almond = np.maximum(upper, lower)
    soft = 1.5 * f.px
    inside = cover(almond, soft)
    white = tint(np.array([0.97, 0.955, 0.95], np.float32), np.clip(-0.42 * np.clip(1 + almond / 0.35, 0, 1), -1, 0))
    canvas.paint(inside, white)
    look = f.moved(rng.normal(0, 0.13), rng.normal(0, 0.04), rng.uniform(0.4, 0.47))
    hue = rng.choice([55.0, 60.0, 65.0, 145.0, 235.0, 250.0]) + rng.normal(0, 8)
    fibres = sample(rng.standard_normal((16, 64), np.float32), look.angle * 10.1859 + 32, look.r * 2 + 3)
    rim, glow = oklch(0.26, 0.05, hue), oklch(rng.uniform(0.5, 0.72), rng.uniform(0.07, 0.13), hue)
    depth = np.clip(1.15 - look.r + 0.1 * fibres, 0, 1)
    canvas.paint(inside * cover(disc(look, 1.0), 0.1), ramp([rim, glow, tint(glow, -0.35)[:, 0, 0]], depth))
    canvas.paint(inside * cover(disc(look, rng.uniform(0.34, 0.5)), 0.08), oklch(0.1, 0.01, hue))
    cast = np.clip(1 + upper / 0.22, 0, 1) * inside
    canvas.shade(-0.4 * cast)
    spark = look.moved(0.38 * canvas.light[0], 0.38 * canvas.light[1])
    canvas.paint(inside * cover(ellipse(spark, 0.2, 0.16), 0.12), np.ones(3, np.float32))
    lid = np.abs(upper) - (0.035 + 0.03 * np.clip(1 - u**2, 0, 1))
    lashes = np.sin(u * rng.uniform(24, 34)) * 0.5 + 0.5
    comb = cover(upper - 0.17 * (0.45 + 0.55 * np.abs(u)) * lashes, 0.03) * (v < 0.05)
    near = cover(-(upper + 0.02), soft) * (np.abs(u) < 1.02)
    canvas.paint(
        0.9 * np.maximum(cover(lid, 2 * soft) * (lower < 0.03) * (v < 0.1), comb * near),
        oklch(0.17, 0.03, 40),
    )
    canvas.paint(0.5 * cover(np.abs(lower) - 0.025, 0.05) * (upper < 0.03) * (v > 0), oklch(0.4, 0.07, 30))
    if rng.random() < 0.7:
        brow = np.abs(v + 1.02 - 0.28 * u**2) - 0.11 * np.clip(1.1 - 0.6 * (u + 1) / 2, 0.1, 1)
        hairs = sample(rng.standard_normal((32, 128), np.float32), u * 26 + v * 14 + 90, v * 4 + 20)
        canvas.paint(
            cover(brow + 0.05 * hairs, 0.1) * (0.85 * np.clip((1.15 - np.abs(u)) * 4, 0, 1)),
            oklch(0.24, 0.04, 50),
        )


def _small_eye(canvas: Canvas, f: Frame, gaze: np.ndarray, iris: Array, wide: float) -> None:
    white = ellipse(f, wide, wide * 0.68)
    soft = 1.5 * f.px
    canvas.paint(0.3 * cover(ellipse(f, wide * 1.5, wide * 1.2), 0.14), np.array([0.2, 0.1, 0.1], np.float32))
    canvas.paint(cover(white, soft), np.array([0.97, 0.96, 0.95], np.float32))
    look = f.moved(float(gaze[0]), float(gaze[1]))
    canvas.paint(cover(np.maximum(disc(look, wide * 0.6), white), soft), iris)
    canvas.paint(cover(np.maximum(disc(look, wide * 0.32), white), soft), np.array([0.04, 0.03, 0.04], np.float32))
    canvas.paint(cover(disc(look.moved(-0.04, -0.04), 0.035), soft), np.ones(3, np.float32))
    lid = np.maximum(np.abs(white) - 0.03, f.v + 0.02)
    canvas.paint(0.85 * cover(lid, soft), np.array([0.12, 0.07, 0.06], np.float32))


def _mouth(canvas: Canvas, rng: Generator, f: Frame) -> None:
    smile, half = rng.uniform(-0.15, 0.9), rng.uniform(0.2, 0.32)
    part = f.moved(0, 0.53)
    curve = part.v + smile * (part.u**2 - half**2 / 2)
    lips = oklch(rng.uniform(0.4, 0.55), rng.uniform(0.09, 0.15), rng.normal(20, 6))
    reach = np.sqrt(np.clip(1 - (part.u / half) ** 2, 0, 1))
    gape = rng.uniform(0.09, 0.16) if rng.random() < 0.45 else 0.0
    edge = np.abs(curve) - (0.055 + gape) * reach
    canvas.paint(cover(edge, 2 * f.px) * (reach > 0), lips)
    if gape:
        canvas.paint(cover(np.abs(curve) - gape * reach, 2 * f.px) * (reach > 0), oklch(0.22, 0.06, 20))
        teeth = np.abs(curve + gape * 0.55) - gape * 0.45 * reach
        canvas.paint(cover(teeth, 2 * f.px) * (reach > 0.2), np.array([0.97, 0.96, 0.93], np.float32))
    else:
        canvas.paint(0.8 * cover(np.abs(curve) - 0.012, 2 * f.px) * (reach > 0), tint(lips, -0.6))
