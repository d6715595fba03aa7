"""A layer at a glance: every unit's visualization, or its best crop, with its number, on pages of readable size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from PIL import Image

from actmine.pipeline.sheets.drawing import CONTENT, GREY, INK, Drawing, blank, column, header, notes, number, stacked

_FEW, _GAP, _CAPTION = 64, 14, 30
_MOST_ROWS = 12


def page_sizes(units: int) -> list[int]:
    """How many of a layer's `units` each page shows: as few pages as are readable, about equally full."""
    columns = _columns(units)
    rows = -(-units // columns)
    pages = max(1, -(-rows // _MOST_ROWS))
    a_page = -(-rows // pages) * columns
    return [min(a_page, units - first) for first in range(0, units, a_page)]


def overview_pages(
    layer: str, units: int, cells: Iterable[tuple[Mapping[str, Any], Image.Image | None]], what: str,
    about: Sequence[str],
) -> Iterator[Drawing]:  # fmt: skip
    """The pages of one layer, 1400 pixels wide, each drawn when asked for.

    `cells` are (row of the units table, picture) in order of units; `what` says what the pictures are.
    """
    cells, columns, first = iter(cells), _columns(units), 0
    for size in page_sizes(units):
        title = f"{units:,} unit{'' if units == 1 else 's'}"
        if size < units:
            title = f"Units {first} to {first + size - 1} of {units:,}"
        yield stacked([header(layer, title, about), notes([what]), _grid(list(islice(cells, size)), columns)], 20)
        first += size


def _columns(units: int) -> int:
    return 8 if units <= _FEW else 12


def _grid(cells: Sequence[tuple[Mapping[str, Any], Image.Image | None]], columns: int) -> Drawing:
    cell = (CONTENT - (columns - 1) * _GAP) // columns
    line = cell + _CAPTION
    block = blank(-(-len(cells) // columns) * line)
    block.breaks = list(range(line, block.height, line))
    for place, (unit, image) in enumerate(cells):
        left, top = column(place % columns, columns, cell), place // columns * line
        strongest = unit["activation_max"]
        fires = strongest is not None and strongest > 0
        block.put(image, left, top, cell, cell, "none" if fires else "never fires")
        across = block.write(left, top + cell + 18, str(unit["unit"]), 16, cell * 0.6, INK if fires else GREY)
        if unit.get("crop") and image is not None:
            across += 5 + block.write(left + across + 5, top + cell + 18, "crop", 13, cell * 0.4, GREY)
        note = number(strongest) if fires else "never fires" if image else ""
        block.write(left + cell, top + cell + 18, note, 14, cell - across - 4, GREY, "rs")
    return block
