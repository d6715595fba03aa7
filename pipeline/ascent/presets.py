"""Presets: named recipes of ascent, nothing but numbers; `PRESETS` holds them all."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import UserError, near_matches


@dataclass(frozen=True, slots=True)
class Stage:
    """A run of steps on a canvas of `canvas` (share of the receptive field's side) around the unit's position.

    `blur` (sigma, pixels) and `step` (root mean square of a picture's change, colours in 0..1) go from their first
    to their second value in equal ratios; `jitter` is the largest shift on each axis (pixels); `natural` is the share
    of the preset's `spectrum` and `colours` that shapes the gradient.
    """

    steps: int
    canvas: float
    blur: tuple[float, float]
    step: tuple[float, float]
    jitter: int
    natural: float = 1.0


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
    bare_size: int = 4
    full_size: int = 24
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
        Stage(steps=34, canvas=0.55, blur=(2.2, 0.8), step=(0.10, 0.10), jitter=8),
        Stage(steps=16, canvas=0.75, blur=(0.8, 0.5), step=(0.10, 0.08), jitter=8),
        Stage(steps=10, canvas=1.0, blur=(0.5, 0.35), step=(0.08, 0.03), jitter=4, natural=0.5),
    ),
    slope=0.05,
    noise=0.03,
    spectrum=0.6,
    colours=0.8,
)
"""One centre position, leaky ReLUs, clipping and a blur after every step that narrows: Øygard's deepdraw, on canvases
that grow around the position instead of octaves, since most of a receptive field's effect lies in its middle (Luo
et al. 2016). Jitter: DeepDream. Gradients shaped by the spectrum and colours of natural images: lucid's Fourier basis
and decorrelated colours (Olah, Mordvintsev, Schubert 2017), as a preconditioner of plain pixels."""

PRESETS = {preset.name: preset for preset in (DEFAULT,)}


def find_preset(name: str) -> Preset:
    """The preset called `name`. Raises `UserError` for an unknown one, with near matches."""
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise UserError(f"There is no preset {name!r}.{near_matches(name, PRESETS)} PRESET is one of: {known}.")
    return PRESETS[name]
