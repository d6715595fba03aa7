"""Which part of an exemplar a sheet shows: all that its unit sees, or the part that matters to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor
from typing import Any

from PIL import Image

from actmine.pipeline.exemplars.heat import heat
from actmine.pipeline.exemplars.pictures import scaled
from actmine.pipeline.run import Run, picture
from actmine.pipeline.words import Shown
from actmine.schemas.crops import BOX

_FEW_CELLS = 3.5  # of a map: what is less shows nothing that its picture does not


def what_is_shown(run: Run, shown: Shown) -> Shown | None:
    """`shown`, or None for a run whose crops are whole images: the way back from the network's input is not known."""
    return None if run.record.get("boxes") == "network input" else shown


def has_focus(row: Mapping[str, Any]) -> bool:
    """Whether an exemplar has a focus; `row` may come from pandas, or from a run without these columns."""
    left = row.get("focus_left")
    return left is not None and left == left


def region(row: Mapping[str, Any], shown: Shown) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is shown of an exemplar (pixels of the original image)."""
    sides = [f"focus_{side}" for side in BOX] if shown is Shown.focus and has_focus(row) else BOX
    left, top, right, bottom = (int(row[side]) for side in sides)
    return left, top, right, bottom


def region_picture(row: Mapping[str, Any], shown: Shown | None) -> Image.Image | None:
    """Those pixels, cut from the picture of the box that is the row's `crop`; None without one."""
    crop: Image.Image | None = row["crop"]
    if crop is None or shown is not Shown.focus or not has_focus(row):
        return crop
    box, inner = region(row, Shown.box), region(row, shown)
    within = inner[0] - box[0], inner[1] - box[1], inner[2] - box[0], inner[3] - box[1]
    return crop.crop(scaled(within, (box[2] - box[0], box[3] - box[1]), crop.size))


def view_picture(row: Mapping[str, Any], shown: Shown | None) -> Image.Image | None:
    """The same part of an exemplar's view (`view`), to a pixel of the network's input or two; None without one."""
    view = picture(row.get("view"))
    if view is None or shown is not Shown.focus or not has_focus(row):
        return view
    box, inner = region(row, Shown.box), region(row, shown)
    across, down = view.width / (box[2] - box[0]), view.height / (box[3] - box[1])
    left, top = floor((inner[0] - box[0]) * across), floor((inner[1] - box[1]) * down)
    return view.crop((left, top, ceil((inner[2] - box[0]) * across), ceil((inner[3] - box[1]) * down)))


def heat_picture(row: Mapping[str, Any], shown: Shown | None) -> Image.Image | None:
    """The same part of an exemplar with its heat map; None without one, or where it is but a few of its cells."""
    crop, activations = region_picture(row, shown), row.get("map")
    if crop is None or shown is None or activations is None or activations.place is None:
        return None
    box, place, size = region(row, shown), activations.place, activations.values.shape
    across = (box[2] - box[0]) * size[1] / (place[2] - place[0])
    down = (box[3] - box[1]) * size[0] / (place[3] - place[1])
    return heat(crop, box, activations) if max(across, down) >= _FEW_CELLS else None


def explanation(rows: Sequence[Mapping[str, Any]], shown: Shown | None) -> list[str]:
    """What the crops of a unit's exemplars are, in one sentence or two; `rows` by rank."""
    sees = "Crops are what the unit sees of the original images; below each its activation, rank and label."
    without = [row["rank"] for row in rows if not has_focus(row)]
    if shown is None:
        return [
            "Crops are whole images: how an image becomes the network's input is not known, and so no place in it.",
        ]
    if shown is Shown.box:
        return [sees]
    if len(without) == len(rows):
        return [sees, "No effective field was measured, so none is shown."]
    matters = (
        "Crops are what matters of all that the unit sees: the smallest box with 95% of its squared input gradient."
    )
    if not without:
        return [matters]
    ranks = f"Rank {without[0]} has" if len(without) == 1 else f"Ranks {without[0]} to {without[-1]} have"
    if without[-1] - without[0] >= len(without):
        ranks = f"{len(without)} of them have"
    return [matters, f"{ranks} no measured focus: there crops are all that the unit sees."]
