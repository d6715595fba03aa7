"""DeepDream: whatever a layer sees in a picture, more of it, octave by octave."""

from __future__ import annotations

from actmine.pipeline.ascent.canvas import Details
from actmine.pipeline.ascent.objectives import Norm
from actmine.pipeline.ascent.optimizers import UnitMean
from actmine.pipeline.ascent.recipe import Line, Preset, Stage
from actmine.pipeline.ascent.transforms import Jitter

_OCTAVES, _LARGER, _SIDE = 4, 1.4, 224

DEEPDREAM = Preset(
    name="deepdream",
    source="Mordvintsev, Olah, Tyka: Inceptionism (2015) and the notebook of DeepDream",
    summary="the norm of the whole layer, octave by octave, from noise or a given picture",
    canvas=Details(noise=0.03, colour=100 / 255),
    objective=Norm(),
    stages=tuple(
        Stage(10, Line(1.5 / 255), UnitMean(), _LARGER**-octave, transforms=(Jitter(32 / _SIDE),), zoom=True)
        for octave in reversed(range(_OCTAVES))
    ),
    side=_SIDE,
)
"""Four octaves, each 1.4 times the one before, of 10 steps of 1.5 of 255 by the mean size of the gradient; jitter of 32
pixels on a canvas of 224. What rises is the norm of the layer: all its units together, whatever the unit, which
only seeds the noise. The octaves of small canvases are alike: none has less than 64 pixels.

To dream on a picture: `replace(DEEPDREAM, canvas=replace(DEEPDREAM.canvas, given=tensor))`, `[C, H, W]` in 0..1."""
