"""Inspections as pictures: a sheet for each layer, and what decides for a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from actmine.pipeline.inspect.bars import bar_list, caption, put_bars
from actmine.pipeline.inspect.maps import Shown, Standing
from actmine.pipeline.sheets.drawing import CONTENT, GREY, MARGIN, Drawing, blank, header, notes, stacked
from actmine.pipeline.sheets.raster import pixels

_PALE = 0.72  # of the way from grey to white, where a unit is silent
_GRID = 8
_CELL = 150
_ROW, _EXEMPLAR = 176, 128
Known = Mapping[int, tuple[Image.Image | None, Sequence[Image.Image | None]]]
"""By unit: its visualization, and crops of its strongest images."""


def lit(seen: Image.Image, values: np.ndarray, most: float, side: int = 224) -> Image.Image:
    """The picture in its colours where a map `[H, W]` reaches `most`, pale and grey where it is not above zero.

    The map is stretched over the picture, which is enlarged to `side` pixels if it is smaller.
    """
    scale = max(1, -(-side // max(seen.size)))
    size = seen.width * scale, seen.height * scale
    height = np.clip(values / most, 0, 1) if most > 0 else np.zeros_like(values)
    mask = Image.fromarray(height.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    large = seen.resize(size, Image.Resampling.BICUBIC)
    colours = np.asarray(large, np.float32)
    pale = np.asarray(large.convert("L"), np.float32)[:, :, None] * (1 - _PALE) + 255 * _PALE
    share = np.asarray(mask)[:, :, None]
    return Image.fromarray(np.round(colours * share + pale * (1 - share)).astype(np.uint8))


def layer_sheet(
    layer: str, shown: Sequence[Shown], units: Sequence[Standing], known: Known, usual: str, classes: Sequence[str] = ()
) -> Image.Image:
    """One layer: the units that stand out, lit where they are active; with a run their own picture and exemplars.

    Units without positions have bars instead, with the names of `classes` where they stand for these. `usual` names the
    run by whose statistics units were chosen; empty without one.
    """
    names = " and ".join(each.name for each in shown)
    chosen = "furthest above their mean" if usual else "the most active first"
    about = [f"{len(units)} of {shown[0].maps[layer].shape[0]:,} units, {chosen}", *([f"in {usual}"] if usual else [])]
    head = header(layer, names, about)
    if not units:
        return pixels(stacked([head, notes(["No unit of this layer fires."], 18)], 24))
    drawn = any(visualization is not None for visualization, _ in known.values())
    lit_up = shown[0].has_positions(layer)
    if known:
        blocks = [_row(layer, shown, units, place, known, drawn, classes) for place in range(len(units))]
    elif lit_up:
        blocks = _grid(layer, shown, units, classes)
    else:
        blocks = bar_list(units, [each.name for each in shown], classes)
    return pixels(stacked([head, *blocks, _note(shown, bool(known), lit_up)], 20))


def _most(layer: str, shown: Sequence[Shown], unit: int) -> float:
    return max(float(each.maps[layer][unit].max()) for each in shown)


def _grid(layer: str, shown: Sequence[Shown], units: Sequence[Standing], classes: Sequence[str]) -> list[Drawing]:
    """Without a run: units side by side, each with its cell for every picture."""
    across = _GRID // len(shown)
    cell = (CONTENT - (_GRID - 1) * 12) // _GRID
    blocks = []
    for start in range(0, len(units), across):
        block = blank(cell + 44)
        for column, each in enumerate(units[start : start + across]):
            for place, picture in enumerate(shown):
                left = (column * len(shown) + place) * (cell + 12)
                values = picture.maps[layer][each.unit]
                block.put(lit(picture.seen, values, _most(layer, shown, each.unit)), left, 0, cell, cell)
                name = classes[each.unit] if classes else f"unit {each.unit}"
                name = name if place == 0 else ""
                block.write(left, cell + 18, name, 16, cell)
                block.write(left, cell + 38, caption(each, place), 16, cell, GREY)
        blocks.append(block)
    return blocks


def _row(
    layer: str, shown: Sequence[Shown], units: Sequence[Standing], place_of: int, known: Known, drawn: bool,
    classes: Sequence[str],
) -> Drawing:  # fmt: skip
    """With a run: the picture lit, what the unit itself prefers, and the images that drive it hardest."""
    block, each = blank(_ROW + 22), units[place_of]
    visualization, crops = known.get(each.unit, (None, ()))
    block.write(0, 24, f"{each.unit}", 26, 92)
    left, wide = 96, len(shown) * (_ROW + 12)
    if not shown[0].has_positions(layer):
        most = max(max(one.activations) for one in units)
        put_bars(block, each, most, classes, left, wide - 12, [picture.name for picture in shown])
    else:
        if classes:
            block.write(0, 48, classes[each.unit], 16, 88, GREY)
        for place, picture in enumerate(shown):
            at, values = left + place * (_ROW + 12), picture.maps[layer][each.unit]
            block.put(lit(picture.seen, values, _most(layer, shown, each.unit)), at, 0, _ROW, _ROW)
            block.write(at, _ROW + 18, caption(each, place), 16, _ROW, GREY)
    left += wide + 12
    if drawn:
        block.put(visualization, left, 0, _ROW, _ROW, "not drawn")
        left += _ROW + 24
    for crop in list(crops)[: (CONTENT - left + 12) // (_EXEMPLAR + 12)]:
        block.put(crop, left, (_ROW - _EXEMPLAR) // 2, _EXEMPLAR, _EXEMPLAR)
        left += _EXEMPLAR + 12
    block.rule(0, _ROW + 21, CONTENT)
    return block


def _note(shown: Sequence[Shown], known: bool, lit_up: bool) -> Drawing:
    full = "its highest value" if len(shown) == 1 else "the highest value in either picture"
    text = f"The picture has its colours where the unit is active, in full at {full}, and is pale elsewhere."
    if not lit_up:
        text = "A bar is as long as the unit is active. This layer has no positions, so nothing is lit in the picture."
    further = "Then what gradient ascent drew for the unit, if it did, and the run's strongest images for it."
    return notes([text, further] if known else [text])


def attention_sheet(
    shown: Sequence[Shown], attention: Sequence[np.ndarray], titles: Sequence[str], layer: str
) -> Image.Image:
    """Each picture as the network sees it, beside it lit by what speaks for a class (`[H, W]` in 0..1)."""
    side = (CONTENT - 24) // 2
    blocks = [header(layer, "What decides for the class", ["Grad-CAM", f"of {layer}"])]
    for picture, values, title in zip(shown, attention, titles, strict=True):
        block = blank(side + 30)
        block.put(lit(picture.seen, np.ones_like(values), 1.0, side), 0, 0, side, side)
        block.put(lit(picture.seen, values, 1.0, side), side + 24, 0, side, side)
        block.write(0, side + 24, picture.name, 18, side, GREY)
        block.write(side + 24, side + 24, title, 18, side)
        blocks.append(block)
    return pixels(stacked(blocks, MARGIN // 2))
