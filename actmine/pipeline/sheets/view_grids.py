"""Views of a layer's units beside the patches they are of, nine each: the figure of Zeiler and Fergus (2014)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from math import ceil
from typing import Any

import numpy as np
from PIL import Image

from actmine.pipeline.exemplars.view_colours import shown as coloured
from actmine.pipeline.naming import label_of
from actmine.pipeline.sheets.drawing import CONTENT, GREY, MAT, Drawing, blank, column, header, notes, number, stacked
from actmine.pipeline.sheets.region import region_picture, view_picture
from actmine.pipeline.words import Shown

SIDE = 3
"""Rows and columns of each grid."""
_ACROSS, _DOWN = 2, 8
_BETWEEN, _INNER, _GAP = 40, 12, 3
_BLOCK = (CONTENT - (_ACROSS - 1) * _BETWEEN) // _ACROSS
_GRID = (_BLOCK - _INNER) // 2
_CELL = (_GRID - (SIDE - 1) * _GAP) // SIDE
_TITLE, _BELOW = 34, 6
_ZERO = (128, 128, 128)
_PIXELS_SHOW = 3

Of = tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]
"""A unit's row of the units table, and its first exemplars with their views in `view`."""


def grid_pages(
    layer: str, units: int, each: Iterable[Of], method: str, about: Sequence[str], shown: Shown | None = Shown.box
) -> Iterator[Drawing]:
    """The pages of `units` of a layer, 1400 pixels wide, each drawn when asked for: memory is that of one page.

    `each` gives the units in order; `shown` says which part of each exemplar (None: patches are whole images).
    """
    each, a_page = iter(each), _ACROSS * _DOWN
    pages = -(-units // a_page)
    while some := list(islice(each, a_page)):
        title = f"{units:,} unit{'' if units == 1 else 's'}"
        if pages > 1:
            title = f"Units {some[0][0]['unit']} to {some[-1][0]['unit']}"
        note = f"{method} views of each unit's strongest exemplars, and beside them the same patches of the images"
        if method == "deconvnet":
            note += ", as in Zeiler and Fergus (2014)"
        rows = [_row(some[at : at + _ACROSS], shown) for at in range(0, len(some), _ACROSS)]
        yield stacked([header(layer, title, about), notes([note]), *rows], 20)


def _row(some: Sequence[Of], shown: Shown | None) -> Drawing:
    block = blank(_TITLE + _GRID + _BELOW)
    for place, (unit, exemplars) in enumerate(some):
        left = column(place, _ACROSS, _BLOCK)
        _title(block, unit, left)
        right = left + _BLOCK - _GRID
        for at in range(SIDE * SIDE):
            x, y = at % SIDE * (_CELL + _GAP), _TITLE + at // SIDE * (_CELL + _GAP)
            row = exemplars[at] if at < len(exemplars) else None
            view, patch = (view_picture(row, shown), region_picture(row, shown)) if row else (None, None)
            _put(block, view and _lifted(_filling(view)), left + x, y, _ZERO)
            _put(block, patch and _filling(patch), right + x, y, MAT)
    return block


def _title(block: Drawing, unit: Mapping[str, Any], left: int) -> None:
    block.write(left, 22, f"Unit {unit['unit']}", 20, _GRID * 0.5)
    strongest = unit["activation_max"]
    fires = strongest is not None and strongest > 0
    said = f"maximum {number(strongest)}" if fires else "never fires on this dataset"
    if fires and (name := label_of(unit)):
        said += f", {name}"
    block.write(left + _BLOCK, 22, said, 16, _BLOCK * 0.7, GREY, "rs")


def _filling(image: Image.Image) -> Image.Image:
    """A picture as large as fits into a cell, small ones too, so that views and patches can be compared."""
    image = image.convert("RGB")
    scale = _CELL / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    if scale < _PIXELS_SHOW:
        return image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    larger = image.resize((image.width * ceil(scale), image.height * ceil(scale)), Image.Resampling.NEAREST)
    return larger.resize(size, Image.Resampling.BOX)  # pixels show as pixels


def _lifted(view: Image.Image) -> Image.Image:
    """A view that has lost strength where fine detail was averaged at full strength again, both signs alike."""
    found = coloured(np.asarray(view).astype(np.float32) - _ZERO[0])
    return view if found is None or found[1] >= _ZERO[0] - 1 else Image.fromarray(found[0])


def _put(block: Drawing, image: Image.Image | None, left: int, top: int, mat: str | tuple[int, int, int]) -> None:
    """A cell with a picture on its mat; without one, an empty cell."""
    block.put(image, left, top, _CELL, _CELL, "", mat if image else MAT)
