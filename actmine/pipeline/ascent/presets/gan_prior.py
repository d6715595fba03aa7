"""Ascent in the code of a generator: only pictures that it can make."""

from __future__ import annotations

from dataclasses import replace

from actmine.pipeline.ascent.code import MISSING, Codes, Generator, Shrink
from actmine.pipeline.ascent.objectives import Centre
from actmine.pipeline.ascent.optimizers import UnitMean
from actmine.pipeline.ascent.recipe import Line, Preset, Stage
from actmine.pipeline.errors import UserError

GAN_PRIOR = Preset(
    name="gan-prior",
    source="Nguyen, Dosovitskiy, Yosinski, Brox, Clune: Synthesizing the preferred inputs via deep generators (2016)",
    canvas=Codes(noise=1.0),
    objective=Centre(),
    stages=(Stage(200, Line(8.0, 1e-10), UnitMean(), regularizers=(Shrink(0.99),)),),
    slope=0.05,
    side=1 << 16,
)
"""DGN-AM: 200 steps divided by the gradient's mean size, whose length falls from 8 to 1e-10; the code decays by 0.99 at
each step and is clipped to 0 and its mean plus three deviations. The published length is for one layer's codes (fc6 of
CaffeNet); so that others can be used, 8 is taken for one deviation of the generator's own codes. The canvas is the
network's input, as the generator makes whole pictures, and the position that is read is the middle one. A code that
makes no unit fire gets its gradient through leaky ReLUs."""


def with_generator(preset: Preset, generator: Generator | None) -> Preset:
    """`preset` drawing with `generator`; one that needs none stays as it is. Raises `UserError` if it lacks one."""
    if not isinstance(preset.canvas, Codes):
        return preset
    if generator is None:
        raise UserError(MISSING)
    deviation = float(generator.std.mean())
    stages = tuple(
        replace(stage, step=Line(deviation * stage.step(0) / 8, deviation * stage.step(1) / 8))
        for stage in preset.stages
    )
    return replace(preset, canvas=replace(preset.canvas, generator=generator), stages=stages)
