"""The words that commands, stages and tables share, and what they are unless something else is said.

This file imports no library, so that a command line can be read before any is there.
"""

from __future__ import annotations

from enum import StrEnum

ORIGINAL, NONE = "original", "none"
SIDE = "256"
"""What is kept of images: pictures whose shorter side has so many pixels.

A crop that is more than half of an image then has about as many as a sheet or a page shows of it.
"""
LENGTH = 1024
"""Of the sketches of units."""
NO_POSITIONS, SAMPLED, EVERY = "none", "sample", "all"
"""At which positions of a map activations are read beside its extremes: nowhere, at one that is drawn, at all."""
FOCUSED = CHECKED = PROJECTED = MAPPED = 9
"""Exemplars of a unit whose focus is measured, whose crop is checked, that get views, whose map is kept."""
AUTO = "auto"
"""What is left to the program."""
OF_A_LAYER = (12, 6, 3, 1)
"""How many sheets of a layer `mine` draws: the first that fits."""
SHEETS_SECONDS = 120.0
"""How long its sheets and overviews may take together, by arithmetic: half of it for overviews."""
MATCHED = 5
"""Matches of a unit in another network."""
BLOCK_SECONDS = 1800.0
"""How long a worker may give no sign of getting on."""
DECONVNET, GUIDED = "deconvnet", "guided"
METHODS = (DECONVNET, GUIDED)
"""What may project an activation back to pixels."""
EXACT, FAISS = "exact", "faiss"
SEARCHES = (EXACT, FAISS)
"""`EXACT`, the default: products by torch, on a GPU where there is one. `FAISS`: its flat index, likewise.

Both look at every pair; `EXACT` computes the product of two units of one run once for both of them. `python -m
benchmarks.neighbors` compares them.
"""
BUILTIN, DREAMSIM, LPIPS = "builtin", "dreamsim", "lpips"
"""Measures of similarity that have a name."""
PRESETS = (
    "default", "filter-max", "noise", "oygard-googlenet", "oygard-vgg", "oygard-class",
    "yosinski-1", "yosinski-2", "yosinski-3", "yosinski-4", "deepdream", "lucid", "maco",
    "mean-image", "vital", "gan-prior",
)  # fmt: skip
"""The names of `actmine.pipeline.ascent.presets`."""
FROM_EXEMPLARS = ("mean-image", "vital")
"""Those of them whose pictures are made of pixels of the dataset, too."""


class Shown(StrEnum):
    """`box` is the receptive field, `focus` the smallest box with 95% of the unit's squared input gradient."""

    box = "box"
    focus = "focus"


class Format(StrEnum):
    """What files sheets are: pixels for the screen, or pages for paper."""

    png = "png"
    pdf = "pdf"
    svg = "svg"


class MapOf(StrEnum):
    """What lies on a map: units by the images that drive them, or images by the units that they drive."""

    units = "units"
    images = "images"


class Paper(StrEnum):
    """What the pages of a PDF are as large as."""

    a4 = "a4"
    letter = "letter"
