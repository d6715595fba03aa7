"""A trainable input: filter maximization as a dense layer that is trained in front of the frozen network."""

from __future__ import annotations

from actmine.pipeline.ascent.canvas import TrainableInput
from actmine.pipeline.ascent.objectives import Mean
from actmine.pipeline.ascent.optimizers import Steady
from actmine.pipeline.ascent.recipe import Line, Preset, Stage

FILTER_MAX = Preset(
    name="filter-max",
    source="Keras articles on maximizing filters with a trainable input",
    summary="a trainable input, plain gradient descent on the filter's mean",
    canvas=TrainableInput(noise=0.05),
    objective=Mean(),
    stages=(Stage(120, Line(0.01), Steady(), redirect=120),),
)
"""One constant input, one dense layer without bias whose weights are the pixels, the network frozen behind it; the loss
is minus the mean of the filter's map, and the optimizer plain gradient descent.

One learning rate cannot serve a whole network, because gradients of its first layers and its last differ by orders of
magnitude: `Steady` divides it by each picture's steepest gradient. ReLUs that would block a picture's whole gradient
hand it on, or else units that are silent on noise, as most late ones are, would stay so.
Nothing tames the picture, so that late units come out as fine noise: this is what the other recipes are measured by."""
