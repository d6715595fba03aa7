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
FOCUSED = CHECKED = PROJECTED = 9
"""Exemplars of a unit whose focus is measured, whose crop is checked, that get views."""
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

Both look at every pair. For 4,000 queries of length 1,024 among 4,000 and 30,000, on two cores, EXACT took 0.67 s and
5.5 s, FAISS 0.60 s and 6.0 s: about the same, so the default is what needs no further package.
"""
BUILTIN, DREAMSIM, LPIPS = "builtin", "dreamsim", "lpips"
"""Measures of similarity that have a name."""
PRESETS = (
    "default", "filter-max", "noise", "oygard-googlenet", "oygard-vgg", "oygard-class",
    "yosinski-1", "yosinski-2", "yosinski-3", "yosinski-4", "deepdream", "lucid", "maco",
    "mean-image", "vital", "gan-prior",
)  # fmt: skip
"""The names of `pipeline.ascent.presets`."""


class Shown(StrEnum):
    """`box` is the receptive field, `focus` the smallest box with 95% of the unit's squared input gradient."""

    box = "box"
    focus = "focus"


class Format(StrEnum):
    """What files sheets are: pixels for the screen, or pages for paper."""

    png = "png"
    pdf = "pdf"
    svg = "svg"
