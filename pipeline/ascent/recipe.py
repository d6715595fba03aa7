"""What a recipe of ascent is made of: a canvas, an objective, stages; each part a value that says what it does.

Three kinds of parts work on pictures or gradients `[B, C, H, W]`, and none mixes the pictures of a batch: transforms
are what the network sees of the picture, shapers change its gradient, regularizers the picture after a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Moment:
    """Where an ascent stands: `share` of the stage's steps (0 to 1), the `step` within the stage, from 0.

    `strength` is how much of the regularizers a canvas of this size gets (0 to 1). `random` is shared by all pictures
    of a layer, so that what it decides does not depend on batch mates. Behind the network there are also the `gradient`
    of the parameters and the objective's `heights` `[B]`.
    """

    share: float
    step: int
    strength: float
    random: torch.Generator
    look: Look
    gradient: Tensor | None = None
    heights: Tensor | None = None


class Part(Protocol):
    """A transform, a shaper or a regularizer."""

    def __call__(self, pictures: Tensor, now: Moment, /) -> Tensor:
        """The changed pictures or gradients, `[B, C, H, W]`."""


class Schedule(Protocol):
    """A number that changes over a stage."""

    def __call__(self, share: float) -> float:
        """Its value when `share` of the steps are done."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """From the first value to the last in equal ratios."""

    first: float
    last: float

    def __call__(self, share: float) -> float:
        """The value at `share`."""
        return float(self.first * (self.last / self.first) ** share)


@dataclass(frozen=True, slots=True)
class Line:
    """From the first value to the last in equal steps; the last is the first where it is left out."""

    first: float
    last: float | None = None

    def __call__(self, share: float) -> float:
        """The value at `share`."""
        return self.first if self.last is None else self.first + (self.last - self.first) * share


class Stepper(Protocol):
    """Turns gradients into steps; what it remembers it remembers for every number of every picture by itself."""

    def __call__(self, parameters: Tensor, gradient: Tensor, step: float, heights: Tensor, /) -> Tensor:
        """The parameters after a step upwards, of the length `step`; `heights` `[B]` is where they stand."""


class Optimizer(Protocol):
    """Begins a stage."""

    def begin(self, parameters: Tensor) -> Stepper:
        """What takes the steps of one stage."""


class Canvas(Protocol):
    """How the pictures of a batch are parameterized."""

    def start(self, seeds: Sequence[int], size: Size, look: Look) -> Tensor:
        """Parameters to begin with, one picture a seed: `[B, …]`, on the CPU."""

    def picture(self, parameters: Tensor, size: Size, look: Look) -> Tensor:
        """The pictures, colours in 0..1: `[B, C, H, W]`, differentiable."""

    def kept_valid(self, parameters: Tensor) -> Tensor:
        """The nearest parameters that stand for a picture."""


class Objective(Protocol):
    """What is to rise."""

    @property
    def one_position(self) -> bool:
        """It reads one position only, so that a cone of the network is enough."""

    def __call__(self, outputs: Tensor, units: Tensor) -> Tensor:
        """One number a picture `[B]`, of a layer's output `[B, U, H, W]` or `[B, U]` and each picture's unit `[B]`."""


@dataclass(frozen=True, slots=True)
class Look:
    """What pictures should look like to suit a network: its mean colour and deviation a channel (0..1).

    `spectrum` is the mean magnitude of the dataset's Fourier transform, `[C, H, W // 2 + 1]` of some size, where known.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    spectrum: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """A run of steps on a canvas of `canvas` (share of the whole one's side) around the unit's position.

    `step` is its length (colours in 0..1, or what the canvas is made of) as `optimizer` has it. `leak` is the share of
    the recipe's `slope` that ReLUs leak; in the first `redirect` steps they hand on gradients that they would block
    (lucid). `zoom`: a picture that comes from a smaller stage is scaled up to this one's
    size, otherwise it is put in its middle.
    """

    steps: int
    step: Schedule
    optimizer: Optimizer
    canvas: float = 1.0
    transforms: tuple[Part, ...] = ()
    shapers: tuple[Part, ...] = ()
    regularizers: tuple[Part, ...] = ()
    leak: float = 1.0
    redirect: int = 0
    zoom: bool = False


@dataclass(frozen=True, slots=True)
class Preset:
    """A recipe.

    `slope` is the leak of every ReLU, from the first step on. Regularizers that ask `Moment.strength` fade out on
    small canvases: they are whole from `full_size` pixels on and absent up to `bare_size`, where a unit is little more
    than a linear filter and its optimum is the filter itself. No stage has less than `least_size` pixels of a larger
    receptive field. `side` is the canvas' (pixels), the unit's receptive field where it is None. A unit that stays at
    zero is tried again, `attempts` times in all, each time with `retry_noise` times more noise and `retry_slope` times
    more leak. `source` is the paper or project it comes from.
    """

    name: str
    source: str
    canvas: Canvas
    objective: Objective
    stages: tuple[Stage, ...]
    slope: float = 0.0
    side: int | None = None
    bare_size: int = 3
    full_size: int = 20
    least_size: int = 64
    attempts: int = 1
    retry_noise: float = 2.0
    retry_slope: float = 3.0
    summary: str = field(default="", kw_only=True)

    def strength(self, side: int) -> float:
        """How much of the regularizers a canvas of `side` pixels gets, 0 to 1."""
        return min(max((side - self.bare_size) / (self.full_size - self.bare_size), 0.0), 1.0)
