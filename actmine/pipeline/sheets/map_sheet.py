"""A map as a picture: for paper with a head, a legend and what it is worth, or the cloud alone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from actmine.pipeline.errors import UserError, first_line
from actmine.pipeline.run import Run
from actmine.pipeline.sheets.drawing import (
    CONTENT,
    GREY,
    INK,
    PAPER,
    Drawing,
    blank,
    header,
    notes,
    number,
    stacked,
)
from actmine.pipeline.sheets.fonts import length
from actmine.pipeline.sheets.map_colours import KINDS, OTHER, ramp, scale
from actmine.pipeline.sheets.map_points import Points, points_of
from actmine.pipeline.sheets.raster import pixels
from actmine.pipeline.sheets.vector import check_vector, write_vector
from actmine.pipeline.storage.files import written_aside
from actmine.pipeline.unit_maps import truth
from actmine.pipeline.words import Format, MapOf

_DENSE = 2  # pixels of the cloud for each of the drawing
_SMOOTH = 2  # pixels that each of those is averaged of, a side
_LOWEST, _HIGHEST = 0.45, 1.0  # of the cloud's width, its height
_NAME = 17
_MOST_NAMED = 28
_LEGEND_COLUMNS = 4


def check_file(path: Path) -> Format:
    """What kind of picture a file is to be. Raises `UserError` for none of ours, and where it cannot be made."""
    kind = path.suffix.removeprefix(".").lower()
    if kind not in {*Format}:
        raise UserError(f"OUT={path} is no picture that can be written: end it in .png, .svg or .pdf.")
    if kind != Format.png:
        check_vector(kind)
    return Format(kind)


def write_map(run: Run, by: MapOf, path: Path) -> Path:
    """Writes a run's map as a picture. Raises `UserError` where there is none, or it cannot be written."""
    kind = check_file(path)
    drawing = map_sheet(points_of(run, by), about(run))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(path) as aside:
            if kind == Format.png:
                pixels(drawing).save(aside, "PNG")
            else:
                write_vector(drawing, aside, kind, f"{run.path.name}, map of {by}")
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or first_line(error)}).") from error
    return path


def about(run: Run) -> list[str]:
    """Of which run the map is."""
    record = run.record
    seen = record.get("counts", {}).get("seen")
    images = f"{seen:,} images" if seen else ""
    return [f"{record.get('model', 'network')} on {record.get('dataset', 'dataset')}", images]


def map_sheet(points: Points, about: Sequence[str]) -> Drawing:
    """The map with a head, the names of regions, a legend, and how far it can be believed; 1400 pixels wide."""
    by = points.by
    title = f"{len(points):,} {by if len(points) != 1 else str(by)[:-1]}"
    what = (
        "Units that respond to the same images lie together" if by == MapOf.units
        else "Images that drive the same units lie together"
    )  # fmt: skip
    lines = [f"{what} (t-SNE). Far apart, big and dense mean nothing here.", truth(points.about, by)]
    block = blank(_height(points))
    colours = colours_of(points)
    block.put(cloud(points, colours, CONTENT * _DENSE), 0, 0, CONTENT, block.height, mat=PAPER)
    _names(block, points)
    blocks = [header(f"map of {by}", title, about), block, _legend(points), notes([line for line in lines if line])]
    return stacked(blocks, 24)


def colours_of(points: Points) -> np.ndarray:
    """A colour for each point, uint8 `[N, 3]`: by its layer, its label, or a number: the first of `ways`."""
    way = points.ways[0][0] if points.ways else ""
    if points.by == MapOf.units and len(points.layers):
        known = np.array([_rgb(each) for each in _layer_colours(len(points.layers))], np.uint8)
        return known[points.layer]
    if way in points.measures:
        known = np.array([_rgb(each) for each in ramp()], np.uint8)
        low, _, high = scale(points.measures[way])
        shares = np.nan_to_num((points.measures[way] - low) / ((high - low) or 1)).clip(0, 1)
        return known[(shares * (len(known) - 1)).round().astype(np.int64)]
    found = np.tile(np.array(_rgb(OTHER), np.uint8), (len(points), 1))
    for place, (label, _) in enumerate(points.commonest(len(KINDS))):
        found[points.label == label] = _rgb(KINDS[place])
    return found


def cloud(points: Points, colours: np.ndarray, width: int, paper: str = PAPER) -> Image.Image:
    """The points as a picture of `width` pixels, in an order that favours no layer."""
    smooth = _SMOOTH * width
    height = round(smooth * _shape(points))
    found = np.empty((height, smooth, 3), np.uint8)
    found[:] = _rgb(paper)
    x, y = places(points, smooth, height)
    radius = max(1.0, min(smooth / 180, smooth / 11 / max(np.sqrt(len(points)), 1)))
    reach = int(np.ceil(radius))
    order = np.random.default_rng(0).permutation(len(points))
    x, y, colours = x[order], y[order], colours[order]
    for down in range(-reach, reach + 1):
        for across in range(-reach, reach + 1):
            if across**2 + down**2 <= radius**2:
                found[np.clip(y + down, 0, height - 1), np.clip(x + across, 0, smooth - 1)] = colours
    image = Image.fromarray(found)
    return image.resize((width, max(1, height // _SMOOTH)), Image.Resampling.BOX)


def cloud_png(points: Points, width: int = 1200) -> bytes:
    """The points alone as a PNG, for pages where no script runs."""
    data = io.BytesIO()
    cloud(points, colours_of(points), width).save(data, "PNG")
    return data.getvalue()


def places(points: Points, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Where points are in a picture of such a size (pixels), with a margin around them."""
    if not len(points):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    margin = 0.02 * width
    wide, high = (max(float(np.ptp(side)), 1e-9) for side in (points.x, points.y))
    factor = min((width - 2 * margin) / wide, (height - 2 * margin) / high)
    x = width / 2 + (points.x - (points.x.max() + points.x.min()) / 2) * factor
    y = height / 2 - (points.y - (points.y.max() + points.y.min()) / 2) * factor
    return x.round().astype(np.int64), y.round().astype(np.int64)


def _shape(points: Points) -> float:
    """The height of the picture by its width."""
    wide, high = (float(np.ptp(side)) if len(points) else 1.0 for side in (points.x, points.y))
    return min(max(high / max(wide, 1e-9), _LOWEST), _HIGHEST)


def _height(points: Points) -> int:
    return round(CONTENT * _shape(points))


def _names(block: Drawing, points: Points) -> None:
    """The names of regions at their places, those that would lie over another left out."""
    taken: list[tuple[float, float, float, float]] = []
    x, y = places(points, CONTENT, block.height)
    for region in points.regions():
        its = points.label == region.label
        name = points.labels[region.label]
        wide = min(length(name, _NAME), 260) + 12
        left = min(max(float(np.median(x[its])) - wide / 2, 0), CONTENT - wide)
        top = min(max(float(np.median(y[its])) - 13, 0), block.height - 26)
        box = (left, top, left + wide, top + 26)
        if any(box[0] < old[2] and old[0] < box[2] and box[1] < old[3] and old[1] < box[3] for old in taken):
            continue
        taken.append(box)
        block.rectangle(*box, PAPER)
        block.write(left + wide / 2, top + 13, name, _NAME, wide - 8, INK, "mm")


def _legend(points: Points) -> Drawing:
    """What the colours mean."""
    entries: list[tuple[str, str, int | None]]
    if points.by == MapOf.units:
        counts = np.bincount(points.layer, minlength=len(points.layers))
        its = zip(points.layers, _layer_colours(len(points.layers)), counts.tolist(), strict=True)
        entries = [(name, colour, count) for name, colour, count in its if count]
        if len(entries) > _MOST_NAMED:
            kept = np.unique(np.linspace(0, len(entries) - 1, _MOST_NAMED).round().astype(int))
            entries = [entries[each] for each in kept]
    elif points.ways and points.ways[0][0] in points.measures:
        name, words = points.ways[0]
        ends = zip(scale(points.measures[name]), (ramp()[0], ramp()[len(ramp()) // 2], ramp()[-1]), strict=True)
        entries = [(f"{number(value)} {words}", colour, None) for value, colour in ends]
    else:
        found = points.commonest(len(KINDS))
        entries = [(points.labels[label], KINDS[place], count) for place, (label, count) in enumerate(found)]
        rest = len(points) - sum(count for _, count in found)
        entries += [("other labels or none", OTHER, rest)] if rest else []
    rows = -(-len(entries) // _LEGEND_COLUMNS)
    block, wide = blank(max(rows, 1) * 26), CONTENT // _LEGEND_COLUMNS
    block.clings = True
    for place, (name, colour, count) in enumerate(entries):
        left, top = place // max(rows, 1) * wide, place % max(rows, 1) * 26
        block.rectangle(left, top + 6, left + 14, top + 20, colour)
        across = block.write(left + 22, top + 18, name, 15, wide - 110)
        if count is not None:
            block.write(left + 30 + across, top + 18, f"{count:,}", 13, 70, GREY)
    return block


def _layer_colours(count: int) -> list[str]:
    return ramp(steps=max(count, 2))[:count]


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
