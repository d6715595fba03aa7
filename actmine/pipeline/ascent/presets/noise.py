"""Plain ascent from random noise, as the Keras blog has it."""

from __future__ import annotations

from actmine.pipeline.ascent.canvas import Pixels
from actmine.pipeline.ascent.objectives import Mean
from actmine.pipeline.ascent.optimizers import UnitRms
from actmine.pipeline.ascent.recipe import Line, Preset, Stage
from actmine.pipeline.ascent.regularizers import Develop

NOISE = Preset(
    name="noise",
    source="Chollet, How convolutional neural networks see the world (the Keras blog, 2016)",
    summary="plain ascent from random noise on the filter's mean",
    canvas=Pixels(noise=5.8 / 255, colour=138 / 255),
    objective=Mean(),
    stages=(Stage(20, Line(1 / 255), UnitRms(), redirect=20, regularizers=(Develop(0.1),)),),
)
"""From grey noise (there uniform in 128..148 of 255, here Gaussian of the same mean and deviation) 20 steps of length 1
of 255 up the filter's mean, gradients divided by their root mean square; then the picture is given a deviation of 0.1
around a middle grey, since so short an ascent leaves it faint. No regularizer. ReLUs
that would block a picture's whole gradient hand it on: most late units are silent on noise."""
