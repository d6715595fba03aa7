"""lucid: a Fourier basis, decorrelated colours, and pictures that keep their effect when moved, scaled and turned."""

from __future__ import annotations

from actmine.pipeline.ascent.fourier import Fourier
from actmine.pipeline.ascent.objectives import Mean
from actmine.pipeline.ascent.optimizers import Adam
from actmine.pipeline.ascent.recipe import Line, Preset, Stage
from actmine.pipeline.ascent.transforms import Pad, RandomCut, Turn

_SIDE = 128
_SCALES = tuple(1 + (number - 5) / 50 for number in range(11))
_DEGREES = (*(float(degrees) for degrees in range(-10, 11)), *(0.0,) * 5)

LUCID = Preset(
    name="lucid",
    source="Olah, Mordvintsev, Schubert: Feature Visualization (Distill 2017) and lucid",
    summary="a Fourier basis, decorrelated colours, robustness to transformations",
    canvas=Fourier(noise=0.01),
    objective=Mean(),
    stages=(
        Stage(
            512, Line(0.05), Adam(), redirect=16,
            transforms=(
                Pad(12 / _SIDE),
                RandomCut(8 / (_SIDE + 24)),
                Turn(_SCALES, _DEGREES),
                RandomCut(4 / (_SIDE + 16)),
            ),
        ),
    ),
    side=_SIDE,
)  # fmt: skip
"""The filter's mean over its map; 512 steps of Adam; what the network sees is padded by 12 pixels, jittered by 8,
scaled by 0.9 to 1.1, turned by up to 10 degrees and jittered by 4; ReLUs hand on gradients in the first 16 steps.

These numbers are for 128 pixels; on a smaller input they shrink with it. Scaling and turning are one resampling in a
frame that stays, where lucid resamples twice and lets the frame grow and shrink."""
