"""The recipe that is used if nothing else is said."""

from __future__ import annotations

from actmine.pipeline.ascent.canvas import Pixels
from actmine.pipeline.ascent.objectives import Centre
from actmine.pipeline.ascent.optimizers import UnitRms
from actmine.pipeline.ascent.recipe import Preset, Ratio, Stage
from actmine.pipeline.ascent.regularizers import Blur, NaturalColours, NaturalSpectrum
from actmine.pipeline.ascent.transforms import Jitter


def _stage(
    steps: int, canvas: float, blur: Ratio, step: Ratio, jitter: float, natural: float = 1.0, leak: float = 1.0
) -> Stage:
    return Stage(
        steps, step, UnitRms(), canvas, leak=leak,
        transforms=(Jitter(jitter),),
        shapers=(NaturalColours(0.65 * natural), NaturalSpectrum(0.6 * natural)),
        regularizers=(Blur(blur, fades=True),),
    )  # fmt: skip


DEFAULT = Preset(
    name="default",
    source="deepdraw (Øygard 2015), lucid (Olah, Mordvintsev, Schubert, Distill 2017), put together anew",
    canvas=Pixels(noise=0.03),
    objective=Centre(),
    stages=(
        _stage(24, 0.5, Ratio(2.2, 0.8), Ratio(0.09, 0.07), 0.04),
        _stage(8, 0.75, Ratio(0.8, 0.5), Ratio(0.08, 0.05), 0.04, leak=0.5),
        _stage(6, 1.0, Ratio(0.5, 0.35), Ratio(0.06, 0.02), 0.01, natural=0.75, leak=0.1),
    ),
    slope=0.05,
    attempts=4,
)
"""One centre position, leaky ReLUs, colours kept valid and a blur after every step that narrows: Øygard's deepdraw,
but on canvases that grow around the position instead of octaves, since most of a field's effect lies in its middle
(Luo et al., NeurIPS 2016). Jitter is DeepDream's. Gradients shaped by the spectrum and colours of natural images are
lucid's Fourier basis and decorrelated colours as a preconditioner of pixels. The last steps leak little: a leaking
ReLU gives negative values, which a unit of mostly negative weights would climb on although the network itself never has
them."""
