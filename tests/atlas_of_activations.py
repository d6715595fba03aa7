"""A small run with an activation atlas: bright pictures of three kinds, one of which has a hostile name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import actmine
from tests.making import encoded, write_folder

LAYER = "block2.relu"
HOSTILE = "\"><img src=x onerror=document.title='broken'>"
KINDS = ("stripes", "blobs", HOSTILE)
EACH, SIDE = 60, 96
QUICK: dict[str, Any] = {"visualize": False, "sheets": False, "quiet": True}


def kind_of(name: str) -> Image.Image:
    """A picture that its name decides: stripes, blobs, or a checkerboard, in colours of its own."""
    kind, number = name.split("/")
    draw = np.random.default_rng([KINDS.index(kind), int(number)])
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    turn, size = draw.uniform(0, np.pi), draw.uniform(6, 12)
    if kind == "stripes":
        shape = np.sin(2 * np.pi * size * (x * np.cos(turn) + y * np.sin(turn)))
    elif kind == "blobs":
        shape = np.cos(2 * np.pi * size / 4 * x + turn) + np.cos(2 * np.pi * size / 4 * y + turn)
    else:
        shape = np.sign(np.sin(2 * np.pi * size * x) * np.sin(2 * np.pi * size * y))
    colours = draw.uniform(20, 235, (2, 3))
    share = ((shape - shape.min()) / (shape.max() - shape.min()))[..., None]
    return Image.fromarray((colours[0] * share + colours[1] * (1 - share)).astype(np.uint8))


def mined(root: Path) -> Path:
    """A run of the demo's network over these pictures, in folders of their kinds."""
    names = [f"{kind}/{number:03d}" for kind in KINDS for number in range(EACH)]
    photos = write_folder(root / "photos", {f"{name}.png": encoded(kind_of(name), "PNG") for name in names})
    return actmine.mine("demo", str(photos), layers=LAYER, topk=3, run=root / "run", **QUICK).path


def make(run: Path | str, layer: str = LAYER, **words: Any) -> actmine.Run:
    """Its activation atlas, quickly."""
    return actmine.activation_atlas(str(run), layer, **({"grids": "3,6", "quiet": True} | words))
