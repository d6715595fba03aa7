"""Øygard's recipes: one position, leaky ReLUs, octaves, and a blur after every step that narrows."""

from __future__ import annotations

from actmine.pipeline.ascent.canvas import Pixels
from actmine.pipeline.ascent.objectives import Centre
from actmine.pipeline.ascent.optimizers import UnitMean
from actmine.pipeline.ascent.recipe import Line, Preset, Stage
from actmine.pipeline.ascent.regularizers import Blur
from actmine.pipeline.ascent.transforms import NormalJitter

_SOURCE = "Øygard, Visualizing GoogLeNet Classes (2015) and deepdraw"


def _octaves(*octaves: tuple[int, float, float, float, float, float], steps: float = 1.0) -> tuple[Stage, ...]:
    """Of iterations, sigma first and last (pixels), step first and last (of 255), and how much larger each one is."""
    zooms, zoom = [], 1.0
    for *_, larger in octaves:
        zoom *= larger
        zooms.append(zoom)
    return tuple(
        Stage(
            count, Line(begin * steps / 255, end * steps / 255), UnitMean(), each / zoom, zoom=True,
            transforms=(NormalJitter(each),) if each > 1 else (),
            regularizers=(Blur(Line(first, last), fades=True),),
        )
        for (count, first, last, begin, end, _), each in zip(octaves, zooms, strict=True)
    )  # fmt: skip


_FILTER_OCTAVES = (
    (200, 2.5, 1.1, 12, 10, 1),
    (100, 1.1, 0.858, 10, 8, 1),
    (100, 0.858, 0.78, 8, 6, 1.05),
    (50, 0.858, 0.40, 6, 1.5, 1.05),
)
"""What both recipes for filters begin with."""

OYGARD_GOOGLENET = Preset(
    name="oygard-googlenet",
    source=_SOURCE,
    summary="octaves with a blur that narrows, as for the filters of GoogLeNet",
    canvas=Pixels(noise=8 / 255, colour=250 / 255),
    objective=Centre(),
    stages=_octaves(
        *_FILTER_OCTAVES,
        (25, 0.4, 0.3, 1.5, 0.5, 1.05),
    ),
    slope=0.01,
    attempts=3,
)
"""The unit's value at one position; ReLUs leak 0.01; steps divided by the mean size of the gradient; colours cut to the
valid range and a Gaussian blur after every step. The picture is scaled up by 1.05 before octaves 3 to 5.

There the picture outgrows the network's input, which then sees crops at offsets that are normally distributed. Here
the canvas of the last octave is the unit's receptive field, earlier ones are smaller by as much as the later ones grow,
and the crops are shifts by the same offsets. On canvases of less than 20 pixels, where a blur of these widths would
leave nothing, it is narrower (`Preset.strength`)."""

OYGARD_VGG = Preset(
    name="oygard-vgg",
    source=_SOURCE,
    summary="the same with a quarter of the steps, as for the filters of VGG-S",
    canvas=Pixels(noise=8 / 255, colour=250 / 255),
    objective=Centre(),
    stages=_octaves(
        *_FILTER_OCTAVES,
        (25, 0.4, 0.1, 1.5, 0.5, 1.05),
        steps=0.25,
    ),
    slope=0.01,
    attempts=3,
)
"""`OYGARD_GOOGLENET` with steps a quarter as long and a last sigma of 0.1."""

OYGARD_CLASS = Preset(
    name="oygard-class",
    source=_SOURCE,
    summary="octaves as for classes: of any layer without positions; of maps, the middle position",
    canvas=Pixels(noise=8 / 255, colour=200 / 255),
    objective=Centre(),
    stages=_octaves(
        (190, 2.5, 0.78, 11, 11, 1),
        (150, 0.936, 0.78, 6, 6, 1.2),
        (150, 0.936, 0.44, 6, 3, 1.2),
        (10, 0.44, 0.304, 3, 3, 1),
    ),
    slope=0.01,
    attempts=3,
)
"""The schedules for class logits, which scale up by 1.2 before octaves 2 and 3 and begin on a darker grey."""
