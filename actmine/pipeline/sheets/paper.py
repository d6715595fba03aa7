"""A drawing as pages of paper: as wide as the margins let it or a little less, cut between rows if too long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from actmine.pipeline.sheets.drawing import CONTENT, GREY, Drawing, Mark, Text
from actmine.pipeline.sheets.drawing import MARGIN as AROUND
from actmine.pipeline.sheets.fonts import elided
from actmine.pipeline.words import Paper

SIZES = {Paper.a4: (595.28, 841.89), Paper.letter: (612.0, 792.0)}
"""Width and height of a page (points)."""
MARGIN = 36.0
"""Of a page, on every side (points): half an inch."""
_FOOT, _SMALL = 20.0, 6  # points: what the foot takes, and its letters
_SMALLEST = 82  # hundredths of the width between the margins: so far is a drawing reduced to take fewer pages


@dataclass(frozen=True, slots=True)
class Place:
    """Where the marks of a drawing are on a page: `scale` points a pixel, from `left` and `top` (points)."""

    scale: float = 1.0
    left: float = 0.0
    top: float = 0.0

    def across(self, left: float) -> float:
        """How far from the left edge of the page (points) something is that is `left` pixels within the drawing."""
        return self.left + left * self.scale

    def down(self, top: float) -> float:
        """How far from its upper edge, likewise."""
        return self.top + top * self.scale


Page = list[tuple[Sequence[Mark], Place]]
"""Marks, and where they are."""


def pages_of(drawing: Drawing, title: str, paper: Paper) -> Iterator[Page]:
    """The pages of a drawing with margins of its own, which are left off; `title` is at the foot of each."""
    width, height = SIZES[paper]
    across, down = width - 2 * MARGIN, height - 2 * MARGIN - _FOOT
    full = across / CONTENT
    tried = [(full * hundredths / 100) for hundredths in range(100, _SMALLEST - 1, -1)]
    scale, parts = min(((each, _parts(drawing, down / each)) for each in tried), key=lambda found: len(found[1]))
    for number, (start, end) in enumerate(parts, start=1):
        fitting = min(scale, down / (end - start))  # a row may be higher than a page
        wide = fitting * CONTENT
        left = (width - wide) / 2
        marks = [mark for mark in drawing.marks if start <= mark.top < end]
        foot = [Text(0, 0, elided(title, _SMALL, wide * 0.85), _SMALL, GREY, "ls")]
        if len(parts) > 1:
            foot.append(Text(wide, 0, f"{number} of {len(parts)}", _SMALL, GREY, "rs"))
        within = Place(fitting, left - AROUND * fitting, MARGIN - start * fitting)
        yield [(marks, within), (foot, Place(1.0, left, height - MARGIN - 2))]


def _parts(drawing: Drawing, room: float) -> list[tuple[int, int]]:
    """From where to where of the drawing each page shows, where a page has `room` (pixels)."""
    first, last = AROUND, drawing.height - AROUND
    parts = []
    while last - first > room:
        further = sorted(each for each in drawing.breaks if first < each < last)
        fitting = [each for each in further if each - first <= room]
        end = fitting[-1] if fitting else next(iter(further), last)
        if end == last:
            break
        parts.append((first, end))
        first = end
    return [*parts, (first, last)]
