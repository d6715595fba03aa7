"""Pictures whose activations are distributed as those of the unit's own exemplars."""

from __future__ import annotations

from actmine.pipeline.ascent.canvas import Pixels
from actmine.pipeline.ascent.matching import Matching
from actmine.pipeline.ascent.optimizers import Adam
from actmine.pipeline.ascent.recipe import Preset, Ratio, Stage, WarmCosine
from actmine.pipeline.ascent.regularizers import Blur, NaturalSpectrum
from actmine.pipeline.ascent.smoothing import Smoothing
from actmine.pipeline.ascent.transforms import Jitter


def _stage(steps: int, canvas: float, blur: Ratio) -> Stage:
    return Stage(
        steps, WarmCosine(0.05, 0.05), Adam((0.5, 0.9)), canvas, zoom=True,
        transforms=(Jitter(30 / 224),),
        shapers=(NaturalSpectrum(0.3),),
        regularizers=(Blur(blur, fades=True), Smoothing(0.001)),
    )  # fmt: skip


VITAL = Preset(
    name="vital",
    source="Görgün, Schiele, Fischer: VITAL (ICCV 2025)",
    canvas=Pixels(noise=0.03),
    objective=Matching(),
    stages=(_stage(80, 0.5, Ratio(0.6, 0.3)), _stage(160, 1.0, Ratio(0.5, 0.1))),
    references=50,
)
"""Sort matching with Adam (0.5, 0.9), a warm-up and a cosine, jitter of 30 in 224 pixels, half the resolution and then
the whole, 50 references. Published are 2,000 steps of length 1.0 in deviations of the input (0.226 in colours) from
white noise: in the few steps here that noise would stay, as the network hardly sees it. So the picture begins almost
plain, steps are shorter, gradients lean towards coarse structure, and a blur that fades and a little total variation
denoising (published as a term of the loss) keep fine noise out. References are exemplar crops, mirrored beyond their
borders where the field left the image. Nothing is maximized, so activations are those of exemplars and not more.
`Matching(relevance=1.0)` weighs channels by relevance; it is off here."""
