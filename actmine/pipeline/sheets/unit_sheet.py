"""One unit's contact sheet: what it prefers, its numbers, and the image regions that drive it hardest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from actmine.pipeline.errors import UserError
from actmine.pipeline.exemplars.heat import heat
from actmine.pipeline.run import picture
from actmine.pipeline.sheets.drawing import (
    ACCENT,
    CONTENT,
    GREY,
    PAPER,
    Drawing,
    blank,
    column,
    header,
    notes,
    number,
    stacked,
)
from actmine.pipeline.sheets.region import explanation, heat_picture, region, region_picture, view_picture
from actmine.pipeline.sheets.unit_summary import facet_of, silent_summary, summary, words_of
from actmine.pipeline.words import Shown

_GAP, _LARGE_GAP = 16, 24
_FEWEST, _LEAST_CELL = 3, 40
_LEAST_BOX = 7


@dataclass(frozen=True, slots=True)
class Look:
    """How many exemplars a sheet shows: `large` ones with whole images, `columns` of smaller ones, `crops` in all.

    Raises `UserError` for numbers that give cells too small to see, or no sheet.
    """

    large: int = 5
    columns: int = 9
    crops: int = 50

    def __post_init__(self) -> None:
        most = (CONTENT + _GAP) // (_LEAST_CELL + _GAP)
        if not _FEWEST <= self.columns <= most:
            raise UserError(f"--columns {self.columns} does not fit. Say a number from {_FEWEST} to {most}.")
        if not 0 <= self.large <= 10:
            raise UserError(f"--large {self.large} does not fit. Say a number from 0 to 10.")
        if self.crops < 1:
            raise UserError(f"--crops {self.crops} leaves nothing to show. Say 1 or more.")

    @property
    def cell(self) -> int:
        """Side of the smaller crops (pixels)."""
        return (CONTENT - (self.columns - 1) * _GAP) // self.columns

    @property
    def across(self) -> int:
        """How many large crops would fill the sheet from margin to margin."""
        return max(self.large, _FEWEST)

    @property
    def large_cell(self) -> int:
        """Side of the large crops (pixels)."""
        return (CONTENT - (self.across - 1) * _LARGE_GAP) // self.across

    @property
    def whole_height(self) -> int:
        """Height of the whole images below them (pixels)."""
        return round(0.73 * self.large_cell)


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole image reduced for a sheet, with the size of the original (pixels) that boxes refer to."""

    image: Image.Image
    width: int
    height: int


def unit_sheet(
    unit: Mapping[str, Any],
    exemplars: Sequence[Mapping[str, Any]],
    wholes: Sequence[Whole | None],
    about: Sequence[str],
    shown: Shown | None = Shown.box,
    method: str = "",
    look: Look = Look(),
) -> Drawing:
    """The sheet of one unit, 1400 pixels wide.

    `unit` is its row of the units table, `exemplars` its rows of the exemplars table by rank, `wholes` the images of
    the first few of them (None: no longer there), `about` up to two lines on the run, `shown` which part of each
    (None: each is a whole image already). Exemplars with a `view`, made by `method`, show it below their crop, and
    those with a `map` their heat map over it and over the whole image.
    """
    firing = [row for row in exemplars if row["activation"] > 0]
    if len(set(map(facet_of, firing))) == 1:
        firing = [{**row, "facet": None} for row in firing]
    visualization = picture(unit["visualization"])
    named = f", {name}" if isinstance(name := unit.get("name"), str) else ""
    blocks = [header(unit["layer"], f"Unit {unit['unit']}{named}", about)]
    if not firing:
        return stacked([*blocks, silent_summary(unit, visualization)], 28)
    large = firing[: min(look.large, look.crops)]
    blocks.append(summary(unit, firing, visualization, len(large)))
    if large:
        blocks.append(_large(large, wholes, shown, look))
    if small := firing[len(large) : look.crops]:
        blocks.append(_small(small, shown, look))
    blocks.append(notes(_legend(exemplars, firing, large, wholes, shown, method, look)))
    return stacked(blocks, 28)


def _large(
    firing: Sequence[Mapping[str, Any]], wholes: Sequence[Whole | None], shown: Shown | None, look: Look
) -> Drawing:
    """The first few: crop, view, rank, activation and label, and the whole image with what is shown of it."""
    cell, height = look.large_cell, look.whole_height
    with_wholes = shown is not None and any(wholes[: len(firing)])
    further = [
        (rows, without)
        for rows, without in (
            ([view_picture(row, shown) for row in firing], "no view"),
            ([heat_picture(row, shown) for row in firing], "no map"),
        )
        if any(rows)
    ]
    below = cell + (cell + 6) * len(further)
    block = blank(below + 50 + (height + 6 if with_wholes else 0))
    for place, row in enumerate(firing):
        left = column(place, look.across, cell)
        block.put(region_picture(row, shown), left, 0, cell, cell, "no crop")
        for number_of, (rows, without) in enumerate(further, start=1):
            block.put(rows[place], left, number_of * (cell + 6), cell, cell, without)
        _caption(block, row, left, below, cell, 17, "rank ")
        if with_wholes:
            whole = wholes[place] if place < len(wholes) else None
            top = below + 56
            image = _warmed(row, whole) if whole else None
            within = block.put(image, left, top, cell, height, "image not found")
            if whole and shown:
                _outline(block, region(row, shown), whole, within, (left, top, left + cell, top + height))
    return block


def _warmed(row: Mapping[str, Any], whole: Whole) -> Image.Image:
    """A whole image with the heat of an exemplar in it, if there is a map."""
    activations = row.get("map")
    if activations is None or activations.place is None:
        return whole.image
    return heat(whole.image, (0, 0, whole.width, whole.height), activations)


def _outline(block: Drawing, box: Sequence[int], whole: Whole, within: Sequence[int], mat: Sequence[int]) -> None:
    """A box of the original as an outline just outside it, on the mat; a tiny one is given room to be seen."""
    across, down = (within[2] - within[0]) / whole.width, (within[3] - within[1]) / whole.height
    left, right = _roomy(within[0] + box[0] * across, within[0] + box[2] * across, mat[0], mat[2])
    top, bottom = _roomy(within[1] + box[1] * down, within[1] + box[3] * down, mat[1], mat[3])
    block.frame(left - 3, top - 3, right + 3, bottom + 3, PAPER, 1)
    block.frame(left - 2, top - 2, right + 2, bottom + 2, ACCENT, 2)


def _roomy(low: float, high: float, first: int, last: int) -> tuple[int, int]:
    """An interval widened to what can be seen and moved so that its outline stays between `first` and `last`."""
    lacking = max(0.0, _LEAST_BOX - (high - low)) / 2
    start, end = max(round(low - lacking), first + 3), min(round(high + lacking), last - 3)
    if end - start >= _LEAST_BOX:
        return start, end
    return (start, start + _LEAST_BOX) if start == first + 3 else (end - _LEAST_BOX, end)


def _small(firing: Sequence[Mapping[str, Any]], shown: Shown | None, look: Look) -> Drawing:
    line = look.cell + 56
    block = blank(-(-len(firing) // look.columns) * line - 8)
    block.breaks = list(range(line, block.height, line))
    for place, row in enumerate(firing):
        left, top = column(place % look.columns, look.columns, look.cell), place // look.columns * line
        block.put(region_picture(row, shown), left, top, look.cell, look.cell, "no crop")
        _caption(block, row, left, top + look.cell, look.cell, 16)
    return block


def _caption(
    block: Drawing, row: Mapping[str, Any], left: int, top: int, width: int, size: int, word: str = ""
) -> None:
    block.write(left, top + 6 + size, number(row["activation"]), size, width * 0.6)
    rank, facet = f"{word}{row['rank']}", facet_of(row)
    rank = f"{rank}, facet {facet}" if facet and word else f"{rank} {facet}".strip()
    token = row.get("token")  # pandas has a NaN for null
    rank = f"{rank}, {token} token" if isinstance(token, str) and token != "patch" and word else rank
    block.write(left + width, top + 6 + size, rank, size - 1, width * 0.55, GREY, "rs")
    block.write(left, top + 9 + 2 * size, words_of(row["label_name"], row["label"], row["key"]), size, width, GREY)


def _legend(
    exemplars: Sequence[Mapping[str, Any]],
    firing: Sequence[Mapping[str, Any]],
    large: Sequence[Mapping[str, Any]],
    wholes: Sequence[Whole | None],
    shown: Shown | None,
    method: str,
    look: Look,
) -> list[str]:
    lines = explanation(firing[: look.crops], shown)
    if any(wholes) and shown:
        lines[0] += " The outline is that crop in its image."
    elif shown and large:
        lines.append("Whole images are not shown: the dataset is no longer where it was mined.")
    if any(row.get("map") for row in large):
        lines.append(
            "Heat maps show where the unit is active, the brighter the more; darker margins are beyond its map."
        )
    if any(row.get("view") for row in large):
        lines.append(
            f"Below the large crops: what of them drives the unit ({method}), signed, grey where nothing does."
        )
    if any(map(facet_of, firing)):
        lines.append("A letter behind the rank is the facet: exemplars that the network's last layer finds alike.")
    if len(firing) > look.crops:
        lines.append(f"The first {look.crops:,} of {len(firing):,} exemplars are shown.")
    if silent := len(exemplars) - len(firing):
        lines.append(f"{silent:,} exemplar{'' if silent == 1 else 's'} at or below zero left out.")
    return lines
