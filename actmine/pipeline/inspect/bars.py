"""Units of layers without positions: a bar each, as there is no place in the picture to light up."""

from __future__ import annotations

from collections.abc import Sequence

from actmine.pipeline.inspect.maps import Standing
from actmine.pipeline.sheets.drawing import BAR, CONTENT, GREY, INK, PALE, Drawing, blank, number

_NAME, _VALUE, _LINE, _THIN = 330, 190, 34, 20  # pixels: of names, of values, of a bar's line, of each of two
_COLOURS = (BAR, GREY)
"""Of the bars of each picture."""


def caption(each: Standing, place: int) -> str:
    """How active a unit is for the picture at `place`, and how far that is above its mean where this is known."""
    if each.heights is None:
        return number(each.activations[place])
    return f"{number(each.activations[place])}, {each.heights[place]:+.1f} dev."


def bar_list(units: Sequence[Standing], pictures: Sequence[str], names: Sequence[str]) -> list[Drawing]:
    """A line for each unit, with a bar for each of the `pictures`, all on one scale; `names` of all units or none."""
    most = max(max(each.activations) for each in units)
    line = _LINE if len(pictures) == 1 else _THIN * len(pictures) + 12
    room = CONTENT - _NAME - _VALUE
    block = blank(line * len(units))
    for row, each in enumerate(units):
        top = row * line
        _name(block, each.unit, names, top + 21 if len(pictures) == 1 else top + line // 2 + 1)
        for place in range(len(pictures)):
            high = _LINE - 12 if len(pictures) == 1 else _THIN - 4
            above = top + (4 if len(pictures) == 1 else 4 + place * _THIN)
            wide = _bar(block, each, place, most, _NAME, above, room, high)
            block.write(_NAME + wide + 10, above + high / 2, caption(each, place), 16, _VALUE - 10, INK, "lm")
    block.breaks = list(range(line, block.height, line))
    return [*([_key(pictures)] if len(pictures) > 1 else []), block]


def put_bars(
    block: Drawing, each: Standing, most: float, names: Sequence[str], left: int, width: int, pictures: Sequence[str]
) -> None:
    """The same for one unit in a part of a block, `width` pixels from `left`: its name, and a bar for each picture."""
    if names:
        block.write(left, 22, names[each.unit], 18, width)
    for place, picture in enumerate(pictures):
        top = 44 + 64 * place
        block.rectangle(left, top, left + width, top + 16, PALE)
        _bar(block, each, place, most, left, top, width, 16)
        said = caption(each, place) + (f" for {picture}" if len(pictures) > 1 else "")
        block.write(left, top + 36, said, 16, width, GREY)


def _bar(block: Drawing, each: Standing, place: int, most: float, left: int, top: int, room: int, high: int) -> float:
    wide = room * max(each.activations[place], 0.0) / most
    if wide >= 1:
        block.rectangle(left, top, left + wide, top + high, _COLOURS[place])
    return wide


def _name(block: Drawing, unit: int, names: Sequence[str], base: float) -> None:
    if not names:
        block.write(0, base, f"unit {unit}", 18, _NAME - 20)
        return
    wide = block.write(0, base, names[unit], 18, _NAME - 80)
    block.write(wide + 10, base, f"{unit}", 16, _NAME - wide - 30, GREY)


def _key(pictures: Sequence[str]) -> Drawing:
    block, left = blank(20), 0.0
    for colour, name in zip(_COLOURS, pictures, strict=True):
        block.rectangle(left, 2, left + 16, 18, colour)
        left += 24 + block.write(left + 24, 16, name, 16, CONTENT / 2 - 60) + 36
    return block
