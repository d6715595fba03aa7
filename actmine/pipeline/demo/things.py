"""Concepts that are things made of parts: cone, ball, wheel, flower, building, leaf."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from actmine.pipeline.demo.colours import (
    GREEN,
    ORANGE,
    Array,
    against,
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
    grain,
    hashed,
    place,
    polygon,
    shadow,
    solid,
)


def cone(canvas: Canvas, rng: Generator) -> None:
    """An ice-cream cone with a scoop or two, or a banded traffic cone."""
    f = place(canvas, rng, (0.4, 0.5), turn=0.5)
    if rng.random() < 0.55:
        _ice_cream(canvas, rng, f)
    else:
        _traffic_cone(canvas, rng, f)


def ball(canvas: Canvas, rng: Generator) -> None:
    """A shaded sphere on its cast shadow: plain, or with the gores of a beach ball."""
    f = place(canvas, rng, squash=(1.0, 1.0))
    colour = against(rng, canvas.ground, (0.08, 0.19))
    if rng.random() < 0.5:
        other = oklch(0.95, 0.02, 90) if rng.random() < 0.6 else any_colour(rng, (0.6, 0.95), (0.05, 0.18))
        depth = np.sqrt(np.clip(1 - f.r**2, 0, 1)) + 0.05
        tilt = rng.uniform(0.5, 1.0)
        along = np.arctan2(f.u, f.v * math.cos(tilt) + depth * math.sin(tilt))
        gores = cover(np.sin(along * rng.integers(2, 4)), 6 * f.px)
        paint: Array = colour[:, None, None] + gores * (other - colour)[:, None, None]
    else:
        paint = tint(colour, 0 * f.r)
    _orb(canvas, f, disc(f, 1.0), paint, gloss=0.75, cast=0.3)


def wheel(canvas: Canvas, rng: Generator) -> None:
    """A tyre, a rim, five to fourteen spokes and a hub, seen at a slight angle."""
    f = place(canvas, rng, (0.32, 0.47), squash=(0.7, 1.0))
    tyre = oklch(rng.uniform(0.16, 0.34), rng.uniform(0.0, 0.04), rng.uniform(0, 360))
    metal = any_colour(rng, (0.7, 0.93), (0.0, 0.05))
    if rng.random() < 0.3:
        tyre, metal = oklch(0.4, 0.07, 55), oklch(0.66, 0.09, 65)
    if rng.random() < 0.4:
        metal = any_colour(rng, (0.55, 0.85), (0.08, 0.17))
    band = rng.uniform(0.09, 0.2)
    outer = np.abs(disc(f, 1 - band / 2)) - (band / 2)
    if rng.random() < 0.6:
        canvas.paint(cover(disc(f, 1 - band), 2 * f.px), tint(tyre, 0.0 * f.r))
    count, width = int(rng.integers(5, 15)), rng.uniform(0.07, 0.13)
    sector = 2 * math.pi / count
    turn = f.angle - np.round(f.angle / sector) * sector
    r = f.r
    off, along = np.abs(np.sin(turn)) * r, np.cos(turn) * r
    spokes = np.maximum(off - (width / 2), along - (1 - band))
    solid(canvas, spokes, f.px, metal, bevel=width / 2, strength=0.45, cast=0.04)
    inner = np.abs(disc(f, 1 - band - 0.05)) - 0.045
    solid(canvas, outer, f.px, tyre, bevel=band / 2, strength=0.5)
    solid(canvas, inner, f.px, metal, bevel=0.05, cast=0)
    solid(canvas, disc(f, rng.uniform(0.14, 0.22)), f.px, metal, bevel=0.16, cast=0.05)
    solid(canvas, disc(f, 0.07), f.px, tyre, bevel=0.05, cast=0)


def flower(canvas: Canvas, rng: Generator) -> None:
    """Five to eleven petals, in one or two rows, around a grainy heart."""
    f = place(canvas, rng, (0.32, 0.46), squash=(0.8, 1.0))
    hue = rng.choice([350.0, 10.0, 30.0, 60.0, 95.0, 300.0, 330.0, 280.0]) + rng.normal(0, 10)
    petal = oklch(rng.uniform(0.66, 0.9), rng.uniform(0.1, 0.2), hue)
    throat = oklch(rng.uniform(0.45, 0.65), rng.uniform(0.12, 0.19), hue + rng.normal(0, 20))
    if canvas.ground > 0.6:
        canvas.rgb = tint(canvas.rgb, -0.35 + 0 * f.r)
    count, rows = int(rng.integers(5, 12)), rng.integers(1, 3)
    heart = rng.uniform(0.2, 0.32)
    for row in range(rows):
        size = 1.0 - 0.3 * row
        turn = f.angle + (row * math.pi / count)
        fold = np.abs(np.cos(turn * (count / 2)))
        edge = size * (0.42 + 0.58 * fold ** rng.uniform(0.4, 0.8))
        distance = (f.r - edge) * 0.75
        radial = np.clip((f.r - heart) / max(size - heart, 0.1), 0, 1)
        veins = 0.07 * np.sin(turn * count * 4) * (1 - radial)
        colours = ramp([throat, petal, tint(petal, 0.2)[:, 0, 0]], np.clip(radial * 1.3 + veins, 0, 1))
        crease = -0.4 * (1 - fold) ** 2
        solid(canvas, distance.astype(np.float32), f.px, tint(colours, crease), bevel=0.15, strength=0.3)
    seeds = grain(rng, canvas.height, canvas.width, max(2.0, 0.09 / f.px))
    yellow = oklch(rng.uniform(0.6, 0.82), rng.uniform(0.1, 0.16), rng.normal(85, 12))
    if rng.random() < 0.25:
        yellow = oklch(0.34, 0.06, 60)
    solid(canvas, disc(f, heart), f.px, tint(yellow, 0.28 * seeds), bevel=0.25, strength=0.45, cast=0.05)


def building(canvas: Canvas, rng: Generator) -> None:
    """A facade with rows of windows, some of them lit, against the sky."""
    f = place(canvas, rng, (0.42, 0.5), turn=0.12)
    lean = rng.uniform(-0.14, 0.14)
    f = Frame(f.u * (1 + lean * f.v), f.v + rng.uniform(-0.16, 0.16) * f.u, f.px)
    half, top = rng.uniform(0.6, 0.95), rng.uniform(-0.95, -0.75)
    if rng.random() < 0.6:
        dusk = rng.random() < 0.3
        zenith, low = ((0.35, 0.09, 285), (0.8, 0.1, 55)) if dusk else ((0.66, 0.11, 250), (0.9, 0.04, 225))
        canvas.rgb = ramp([oklch(*zenith), oklch(*low)], np.clip(0.5 + 0.5 * f.v, 0, 1))
    tall = f.moved(0, (2.0 + top) / 2)
    wall_colour = any_colour(rng, (0.42, 0.86), (0.02, 0.09), (20, 110) if rng.random() < 0.7 else (200, 280))
    wall = box(tall, half, (2.0 - top) / 2)
    shadow(canvas, wall, f.px, 0.1)
    light = 0.16 * np.clip(f.u * canvas.light[0], -1, 1) - 0.05
    canvas.paint(cover(wall, 1.5 * f.px), tint(wall_colour, light))
    columns, pitch = int(rng.integers(3, 6)), rng.uniform(0.33, 0.5)
    u = (f.u + half) / (2 * half) * columns
    v = (f.v - top - 0.14) / pitch
    cell_u, cell_v = np.floor(u), np.floor(v)
    du, dv = (u - cell_u - 0.5) * (2 * half / columns), (v - cell_v - 0.5) * pitch
    wide, high = half / columns * rng.uniform(0.5, 0.72), pitch * rng.uniform(0.28, 0.38)
    pane = np.maximum(np.abs(du) - wide, np.abs(dv) - high)
    inside = (cell_u >= 0) & (cell_u < columns) & (cell_v >= 0)
    seed = float(rng.integers(0, 1000))
    chance = hashed(cell_u + seed, cell_v)
    dark, lit = oklch(rng.uniform(0.24, 0.4), 0.04, 250), oklch(0.9, 0.1, 90)
    share = rng.choice([0.0, 0.25, 0.5])
    glass = np.where(chance < share, lit[:, None, None], tint(dark, 0.25 * chance - 0.35 * dv / high))
    frame_colour = tint(wall_colour, 0.55 if rng.random() < 0.6 else -0.45)
    edge = 1.5 * f.px
    canvas.paint(cover(pane - 0.035, edge) * inside, frame_colour)
    canvas.paint(cover(pane, edge) * inside, glass.astype(np.float32))
    bars = np.minimum(np.abs(du), np.abs(dv + 0.2 * high)) - 0.014
    canvas.paint(cover(np.maximum(pane, bars), edge) * inside, frame_colour)
    sill = np.maximum(np.abs(du) - wide * 1.2, np.abs(dv - high - 0.05) - 0.03)
    canvas.paint(cover(sill, edge) * inside, tint(wall_colour, 0.3))
    roof = box(f.moved(0, top), half + 0.07, 0.06)
    solid(canvas, roof, f.px, tint(wall_colour, -0.3), bevel=0.05, cast=0.08)


def leaf(canvas: Canvas, rng: Generator) -> None:
    """A leaf with a midrib and side veins, green or autumnal."""
    f = place(canvas, rng, (0.36, 0.48), squash=(0.85, 1.0))
    hue = rng.normal(GREEN - 12, 9) if rng.random() < 0.65 else rng.normal(62, 16)
    blade = oklch(rng.uniform(0.42, 0.66), rng.uniform(0.1, 0.15), hue)
    rib_colour = tint(blade, 0.5)
    bend = f.u + 0.14 * rng.uniform(-1, 1) * f.v**2
    t = np.clip((f.v + 1) / 1.85, 0, 1)
    width = rng.uniform(1.0, 1.5) * t ** rng.uniform(0.7, 0.9) * (1 - t) ** rng.uniform(0.55, 0.75)
    teeth = 1 + 0.06 * np.sin(f.v * 34) * rng.choice([0, 1])
    distance = np.maximum((np.abs(bend) - width * teeth) * 0.75, np.abs(f.v + 0.075) - 0.93)
    stalk = np.maximum(np.abs(bend) - 0.028, np.abs(f.v - 0.85) - 0.27)
    solid(canvas, stalk.astype(np.float32), f.px, tint(blade, -0.2), bevel=0.03, cast=0.08)
    count, slant = rng.uniform(5, 8), rng.uniform(0.6, 1.0)
    vein = (f.v + slant * np.abs(bend)) * count
    near = np.abs(vein - np.round(vein)) / count
    lines = np.maximum(cover(near - 0.012, 0.03), cover(np.abs(bend) - 0.022, 2 * f.px))
    blotch = 0.1 * grain(rng, canvas.height, canvas.width, canvas.short / 5, 2)
    half = np.where(bend * canvas.light[0] > 0, 0.07, -0.1)
    ripple = -0.12 * np.cos(2 * math.pi * vein) * np.clip(np.abs(bend) * 4, 0, 1)
    paint = tint(blade, np.clip(half + blotch + ripple, -0.5, 0.4))
    solid(canvas, distance.astype(np.float32), f.px, paint + 0.75 * lines * (rib_colour - paint), bevel=0.15)


def _ice_cream(canvas: Canvas, rng: Generator, f: Frame) -> None:
    wafer = polygon(f, [(-0.44, -0.1), (0.44, -0.1), (0.03, 0.98), (-0.03, 0.98)], 0.03)
    shadow(canvas, wafer, f.px)
    u, v = f.u * 7.5 + f.v * 3.4, f.u * 7.5 - f.v * 3.4
    ridge = np.minimum(np.abs(u - np.round(u)), np.abs(v - np.round(v)))
    round_light = 0.45 * f.u * np.sign(canvas.light[0]) / np.maximum(0.47 - 0.42 * (f.v + 0.1), 0.1) * 0.6
    baked = tint(oklch(rng.uniform(0.66, 0.76), 0.11, rng.normal(68, 5)), np.clip(round_light, -0.4, 0.35))
    canvas.paint(cover(wafer, 1.5 * f.px), tint(baked, -0.34 * cover(ridge - 0.1, 0.12)))
    flavours = [any_colour(rng, (0.7, 0.93), (0.04, 0.14)) for _ in range(2)]
    scoops = [(0.0, -0.34, 0.5)] if rng.random() < 0.6 else [(0.0, -0.24, 0.46), (0.02, -0.68, 0.38)]
    for (x, y, size), flavour in zip(scoops, flavours, strict=False):
        part = f.moved(x, y, size)
        wavy = part.r - 1 - 0.05 * np.sin(9 * part.angle + rng.uniform(0, 6)) * cover(-part.v, 0.6)
        _orb(canvas, part, wavy, flavour, gloss=0.25, cast=0.12)


def _traffic_cone(canvas: Canvas, rng: Generator, f: Frame) -> None:
    hue = rng.normal(ORANGE - 14, 5) if rng.random() < 0.75 else rng.uniform(0, 360)
    colour = oklch(rng.uniform(0.6, 0.7), rng.uniform(0.16, 0.2), hue)
    base = box(f.moved(0, 0.82), 0.78, 0.1, 0.06)
    solid(canvas, base, f.px, tint(colour, -0.25), bevel=0.1)
    body = polygon(f, [(-0.11, -0.92), (0.11, -0.92), (0.5, 0.76), (-0.5, 0.76)], 0.02)
    lift = f.v + 0.16 * (f.u / 0.5) ** 2
    bands = np.zeros_like(body)
    for height in rng.permutation([-0.42, 0.0, 0.42])[: rng.integers(1, 3)]:
        bands = np.maximum(bands, cover(np.abs(lift - height) - 0.11, 2 * f.px))
    paint = tint(colour, 0.0 * bands) + bands * (0.96 - colour[:, None, None])
    half = 0.11 + 0.39 * np.clip((f.v + 0.92) / 1.68, 0, 1)
    side = np.clip(f.u / half, -1, 1) * np.sign(canvas.light[0])
    lit = 0.5 * np.exp(-(((side - 0.45) / 0.28) ** 2)) - 0.45 * np.clip(0.2 - side, 0, 1) ** 1.2
    canvas.paint(cover(body, 1.5 * f.px), tint(paint, np.clip(lit, -0.5, 0.4)))


def _orb(canvas: Canvas, f: Frame, distance: Array, colour: Array, gloss: float, cast: float) -> None:
    """Paints a sphere of radius 1 within the outline `distance`: diffuse light, rim and highlight."""
    shadow(canvas, distance, f.px, cast, 0.45)
    lx, ly = canvas.light
    depth = np.sqrt(np.clip(1 - f.r**2, 0, 1))
    facing = 0.62 * (f.u * lx + f.v * ly) + 0.78 * depth
    body = tint(colour, np.clip(0.62 * facing - 0.4, -0.62, 0.14))
    body = tint(body, 0.14 * np.clip(1 - depth * 2.2, 0, 1))
    canvas.paint(cover(distance, 1.5 * f.px), body)
    spark = f.moved(0.48 * lx, 0.48 * ly)
    canvas.paint(gloss * np.exp(-(spark.r**2) / 0.028), np.ones(3, np.float32))
