"""What making an activation atlas is going to take: its stages, about how long each is and what it writes."""

from __future__ import annotations

from collections.abc import Sequence

from actmine.pipeline.activation_atlas.directions import SHOWN
from actmine.pipeline.cores import usable_cores
from actmine.pipeline.network.layers import Layer
from actmine.pipeline.relations.layout import seconds as laid_out_in
from actmine.pipeline.stages.mining_plan import Planned

# Measured on one core: decoding an image (seconds); a drawing, a crop with its image, a position (bytes)
_DECODE = 0.0045
_DRAWING, _CROP, _POINT = 56_000, 20_000, 60
_FILLED = 0.6  # of a grid's cells, or of those that its images are enough for


def atlas_plan(
    layer: Layer, images: int, sides: Sequence[int], least: int, an_image: float, a_cell: float
) -> list[Planned]:
    """Of `images` in grids of `sides`, cells of at least `least`; `an_image` and `a_cell` are seconds on a core, and in
    all. Good to a factor of two or three."""
    cells = round(sum(min(_FILLED * side**2, images / least) for side in sides))
    crops = min(images, SHOWN * cells)
    cores = usable_cores()
    own = 4 * layer.units * cells
    return [
        Planned(("Reading positions",), "positions", images, "images", images * (an_image + _DECODE) / cores,
                images * _POINT),
        Planned(("Laying out the map",), "layout", images, "positions", laid_out_in(images), 0),
        Planned(("Drawing",), "drawings", cells, "cells", cells * a_cell, cells * _DRAWING + own),
        Planned(("Cutting crops",), "crops", crops, "images", crops * _DECODE / cores, crops * _CROP),
    ]  # fmt: skip
