"""The four recipes of Yosinski et al. 2015, found there by a random search over regularizers."""

from __future__ import annotations

from actmine.pipeline.ascent.canvas import Pixels
from actmine.pipeline.ascent.objectives import Centre
from actmine.pipeline.ascent.optimizers import Progress, Steady
from actmine.pipeline.ascent.recipe import Line, Optimizer, Part, Preset, Stage
from actmine.pipeline.ascent.regularizers import Blur, ClipIdle, ClipSmall, Decay

_NATURAL = 0.23  # contrast of photographs: the deviation of their colours


def _preset(number: int, steps: int, step: float, optimizer: Optimizer, *regularizers: Part, summary: str) -> Preset:
    return Preset(
        name=f"yosinski-{number}",
        source="Yosinski, Clune, Nguyen, Fuchs, Lipson: Understanding Neural Networks Through Deep Visualization, 2015",
        summary=summary,
        canvas=Pixels(noise=10 / 255),
        objective=Centre(),
        stages=(Stage(steps, Line(step), optimizer, redirect=steps, regularizers=regularizers),),
    )


YOSINSKI_1 = _preset(
    1, 500, _NATURAL, Progress(0.02, 0.1), Blur(Line(0.5), 4, True), ClipSmall(50),
    summary="blur every 4 steps, half of the pixels clipped by their norm",
)  # fmt: skip
YOSINSKI_2 = _preset(
    2, 750, 0.08, Steady(), Decay(0.3), ClipSmall(20),
    summary="strong decay, a fifth of the pixels clipped by their norm",
)  # fmt: skip
YOSINSKI_3 = _preset(
    3, 1000, 0.01, Steady(), Decay(1e-4), Blur(Line(1.0), 4, True),
    summary="blur every 4 steps, hardly any decay",
)  # fmt: skip
YOSINSKI_4 = _preset(
    4, 1000, _NATURAL, Progress(0.02, 0.1), Blur(Line(0.5), 4, True), ClipIdle(90),
    summary="blur every 4 steps, nine tenths of the pixels clipped by their contribution",
)  # fmt: skip

"""What the four share and what is not as published:

- They begin with noise of deviation 10 of 255 around the mean colour. ReLUs that would block a picture's whole gradient
  hand it on: the published recipes were for class logits, which have no ReLU.
- 1 and 4 choose each step by the remaining progress; `Progress` says what stands for a probability.
- 2 and 3 have a constant rate of 100 for the logits of CaffeNet and colours in 0..255. Gradients of other units are
  larger or smaller by orders of magnitude, so the rate here is one that moves a picture by 0.08 (2, against its strong
  decay) or 0.01 (3) where it is steepest (`Steady`).
- Blur and clips are weaker on canvases of less than 20 pixels (`Preset.strength`).

Deviations that are clipped or decay are those from the network's mean colour."""
