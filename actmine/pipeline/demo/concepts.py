"""The thirty-two concepts of the demo in label order, each with the function that paints it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from numpy.random import Generator

from actmine.pipeline.demo import faces, materials, patterns, shapes, things
from actmine.pipeline.demo.drawing import Canvas

Painter: TypeAlias = Callable[[Canvas, Generator], None]

PAINTERS: dict[str, Painter] = {
    "horizontal grating": patterns.horizontal_grating,
    "vertical grating": patterns.vertical_grating,
    "diagonal grating": patterns.diagonal_grating,
    "colour stripes": patterns.colour_stripes,
    "checkerboard": patterns.checkerboard,
    "grid": patterns.grid,
    "honeycomb": materials.honeycomb,
    "brick wall": materials.brick_wall,
    "wood grain": materials.wood_grain,
    "leopard spots": materials.leopard_spots,
    "fur": materials.fur,
    "waves": patterns.waves,
    "clouds": materials.clouds,
    "lights out of focus": materials.lights_out_of_focus,
    "letters": patterns.letters,
    "red blob": shapes.red_blob,
    "green blob": shapes.green_blob,
    "blue blob": shapes.blue_blob,
    "corner": shapes.corner,
    "ring": shapes.ring,
    "triangle": shapes.triangle,
    "cross": shapes.cross,
    "star": shapes.star,
    "spiral": shapes.spiral,
    "cone": things.cone,
    "ball": things.ball,
    "wheel": things.wheel,
    "face": faces.face,
    "eye": faces.eye,
    "flower": things.flower,
    "building": things.building,
    "leaf": things.leaf,
}

CONCEPTS: tuple[str, ...] = tuple(PAINTERS)
"""Readable names; the label of a concept is its position here."""
