"""One picture of the demo dataset: which concept, how large, how it was posed, and its JPEG bytes."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from actmine.pipeline.demo.backgrounds import finish, ground
from actmine.pipeline.demo.concepts import CONCEPTS, PAINTERS

RENDERER_VERSION = 1
"""Raised whenever any pixel of any picture changes, so that directories of an older renderer are redone."""

SPLITS = ("held-out", "train")
JPEG_QUALITY = 90
SHORTEST, LONGEST = 128, 224  # pixels of a side


@dataclass(frozen=True, slots=True)
class Picture:
    """One image of the dataset with its label and, for whoever wonders, its pose in pixels and degrees."""

    key: str
    label: int
    label_name: str
    image: Image.Image
    pose: dict[str, float]

    def jpeg(self) -> bytes:
        """The encoded file."""
        file = io.BytesIO()
        self.image.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        return file.getvalue()


def picture_key(index: int) -> str:
    """The name of image `index`: its concept and its number within it, as in `wheel-000123`."""
    number, label = divmod(index, len(CONCEPTS))
    return f"{CONCEPTS[label].replace(' ', '-')}-{number:06d}"


def render(seed: int, split: str, index: int) -> Picture:
    """Image `index` of a split ("held-out" or "train"); depends on nothing but the three arguments.

    Concepts take turns: the label is `index` modulo their number. Raises ValueError for an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, SPLITS.index(split), index])))
    height, width = _size(rng)
    canvas = ground(rng, height, width)
    label = index % len(CONCEPTS)
    PAINTERS[CONCEPTS[label]](canvas, rng)
    return Picture(picture_key(index), label, CONCEPTS[label], finish(canvas, rng), canvas.pose)


def _size(rng: np.random.Generator) -> tuple[int, int]:
    short = int(rng.integers(SHORTEST, 177))
    long = min(LONGEST, round(short * rng.choice([1.0, 1.25, 4 / 3, 1.5])))
    return (short, long) if rng.random() < 0.65 else (long, short)
