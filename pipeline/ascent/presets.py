"""Presets: named recipes of ascent, nothing but numbers; `PRESETS` holds them all."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import UserError, near_matches


@dataclass(frozen=True, slots=True)
class Stage:
    """A run of steps on a canvas of `canvas` (share of the receptive field's side) around the unit's position.

    `blur` (sigma, pixels) and `step` (root mean square of a picture's change, colours in 0..1) go from their first
    to their second value in equal ratios. `jitter` is the largest shift on each axis (share of the canvas).
    `natural` is the share of the preset's `spectrum` and `colours` that shapes the gradient, `leak` that of its
    `slope`.
    """

    steps: int
    canvas: float
    blur: tuple[float, float]
    step: tuple[float, float]
    jitter: float
    natural: float = 1.0
    leak: float = 1.0


@dataclass(frozen=True, slots=True)
class Preset:
    """A recipe. `slope` is the leak of every ReLU, `noise` the start's standard deviation (colours in 0..1).

    `spectrum` and `colours` shape the gradient (`natural_spectrum`, `natural_colours`). All regularizers fade out
    on small canvases: they are whole from `full_size` pixels on and absent up to `bare_size`, where a unit is
    little more than a linear filter and its optimum is the filter itself. No stage has less than `least_size`
    pixels of a larger receptive field. A unit that stays at zero is tried again, `attempts` times in all, each time
    with `retry_noise` times more noise and `retry_slope` times more leak.
    """

    name: str
    stages: tuple[Stage, ...]
    slope: float
    noise: float
    spectrum: float
    colours: float
    bare_size: int = 3
    full_size: int = 20
    least_size: int = 64
    attempts: int = 4
    retry_noise: float = 2.0
    retry_slope: float = 3.0

    def strength(self, side: int) -> float:
        """How much of the regularizers a canvas of `side` pixels gets, 0 to 1."""
        return min(max((side - self.bare_size) / (self.full_size - self.bare_size), 0.0), 1.0)


DEFAULT = Preset(
    name="default",
    stages=(
        Stage(steps=34, canvas=0.6, blur=(2.2, 0.8), step=(0.07, 0.07), jitter=0.04),
        Stage(steps=16, canvas=0.8, blur=(0.8, 0.5), step=(0.07, 0.05), jitter=0.04, leak=0.5),
        Stage(steps=10, canvas=1.0, blur=(0.5, 0.35), step=(0.05, 0.02), jitter=0.01, natural=0.75, leak=0.1),
    ),
    slope=0.05,
    noise=0.03,
    spectrum=0.6,
    colours=0.65,
)
"""One centre position, leaky ReLUs, colours kept valid and a blur after every step that narrows: Øygard's deepdraw,
but on canvases that grow around the position instead of octaves, since most of a field's effect lies in its middle
(Luo et al., NeurIPS 2016). Jitter is DeepDream's. Gradients shaped by the spectrum and colours of natural images are
lucid's Fourier basis and decorrelated colours (Olah, Mordvintsev, Schubert, Distill 2017) as a preconditioner of
pixels. The last steps leak little: a leaking ReLU gives negative values, which a unit of mostly negative weights
would climb on although the network itself never has them."""

PRESETS = {preset.name: preset for preset in (DEFAULT,)}


def find_preset(name: str) -> Preset:
    """The preset called `name`. Raises `UserError` for an unknown one, with near matches."""
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise UserError(f"There is no preset {name!r}.{near_matches(name, PRESETS)} PRESET is one of: {known}.")
    return PRESETS[name]
