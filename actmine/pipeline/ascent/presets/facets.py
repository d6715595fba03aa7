"""One picture for each facet of a unit, begun with the mean of the facet's exemplars."""

from __future__ import annotations

from actmine.pipeline.ascent.objectives import Centre
from actmine.pipeline.ascent.optimizers import UnitRms
from actmine.pipeline.ascent.recipe import Preset, Ratio, Stage
from actmine.pipeline.ascent.regularizers import Blur, NaturalColours, NaturalSpectrum
from actmine.pipeline.ascent.smoothing import CentreWeight, Smoothing
from actmine.pipeline.ascent.starts import Given
from actmine.pipeline.ascent.transforms import Jitter


def _stage(steps: int, step: Ratio, blur: Ratio, jitter: float, natural: float = 1.0, leak: float = 1.0) -> Stage:
    return Stage(
        steps, step, UnitRms(), leak=leak,
        transforms=(Jitter(jitter),),
        shapers=(NaturalColours(0.65 * natural), NaturalSpectrum(0.6 * natural), CentreWeight(0.35)),
        regularizers=(Blur(blur, fades=True), Smoothing(0.008)),
    )  # fmt: skip


MEAN_IMAGE = Preset(
    name="mean-image",
    source="Nguyen, Yosinski, Clune: Multifaceted Feature Visualization (ICML workshop 2016)",
    canvas=Given(noise=0.01),
    objective=Centre(),
    stages=(
        _stage(32, Ratio(0.03, 0.03), Ratio(1.2, 0.6), 0.03),
        _stage(10, Ratio(0.025, 0.01), Ratio(0.5, 0.35), 0.01, natural=0.75, leak=0.1),
    ),
    slope=0.05,
    attempts=4,
    references=50,
    facets=True,
)
"""The published recipe starts from the mean of the 15 images nearest the middle of a cluster, which is blurred by being
a mean, and rises with a blur, total variation denoising and more weight on the middle; its code for clusters and mean
images was never released. There the images are a class's; here they are the unit's own exemplars, as crops that lie so
that what drives the unit is in one place, and clusters are found in what the stages of the network up to the unit make
of them (principal components, k-means, up to four by their silhouette where it beats that of one cloud; there, t-SNE of
fc7 and ten)."""
