"""MACO: only phases are free, magnitudes stay those of natural images."""

from __future__ import annotations

from actmine.pipeline.ascent.fourier import Phase
from actmine.pipeline.ascent.objectives import Mean
from actmine.pipeline.ascent.optimizers import Adam
from actmine.pipeline.ascent.recipe import Line, Preset, Stage
from actmine.pipeline.ascent.transforms import Crops, Noise

MACO = Preset(
    name="maco",
    source="Fel et al.: Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained Optimization "
    "(NeurIPS 2023), Xplique and Horama",
    summary="free phases, the magnitudes of natural images, random crops",
    canvas=Phase(),
    objective=Mean(),
    stages=(
        Stage(
            256, Line(1.0, 0.05), Adam(nesterov=True), redirect=256,
            transforms=(Crops(6, Line(1.0, 0.5)), Noise(Line(0.08, 0.05))),
        ),
    ),
    side=512,
    spectrum=True,
)  # fmt: skip
"""Phases alone are ascended on, by NAdam in 256 steps; the network sees six noisy crops of the picture at each.

Published canvases have 512 to 1,280 pixels a side and crops of 0.05 to 0.5 of that. Here the canvas is no larger than
the network's input, so crops are larger shares of it, the whole at first and half of it in the end: units then are not
driven by details that only a magnifying glass would show them. The noise is the published 0.08 to 0.05. The step falls
from the published 1.0 to a twentieth: at a constant one phases do not settle on canvases this small (the units of
the demo reach a third). ReLUs that would block a picture's whole gradient hand it on."""
