"""A level of an activation atlas as a sheet: what was drawn for each cell, where it lies on the map, with its label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from actmine.pipeline.naming import label_of_cell
from actmine.pipeline.sheets.drawing import CONTENT, GREY, INK, Drawing, blank, header, notes, stacked

_CAPTIONED = 14
"""Cells a side up to which there is room for labels below pictures."""
_CAPTION, _GAP = 34, 4


def cell_map(
    layer: str, side: int, cells: Sequence[tuple[Mapping[str, Any], Image.Image | None]], least: int,
    about: Sequence[str],
) -> Drawing:  # fmt: skip
    """The sheet of one level, 1400 pixels wide; `cells` are (row of the cells table, picture) in any order.

    Cells of fewer than `least` images are empty.
    """
    images = sum(int(row["images"]) for row, _ in cells)
    named = [row for row, _ in cells if label_of_cell(row)]
    lines = [
        f"what the mean direction of each cell prefers; {images:,} images, one position each; empty: under {least}"
    ]
    if named and side <= _CAPTIONED:
        lines.append("below it a label over-represented beyond chance (q below 5%), its share here and among all")
    title = f"Activation atlas, {side} × {side}"
    return stacked([header(layer, title, about), notes(lines), _grid(side, cells, bool(named))], 20)


def _grid(side: int, cells: Sequence[tuple[Mapping[str, Any], Image.Image | None]], captions: bool) -> Drawing:
    captions = captions and side <= _CAPTIONED
    gap = _GAP if captions else 1
    cell = (CONTENT - (side - 1) * gap) // side
    line = cell + (_CAPTION if captions else 0) + gap
    block = blank(side * line)
    block.breaks = list(range(line, block.height, line))
    left_over = (CONTENT - side * cell - (side - 1) * gap) // 2
    for row, image in cells:
        left, top = left_over + int(row["column"]) * (cell + gap), int(row["row"]) * line
        block.put(image, left, top, cell, cell)
        if captions and (label := label_of_cell(row)):
            share = f"{row['label_share']:.0%}, {row['label_chance']:.0%} of all"
            block.write(left, top + cell + 14, label, 13, cell, INK)
            block.write(left, top + cell + 28, share, 11, cell, GREY)
    return block
