"""What a recipe of ascent is made of: a canvas, an objective, stages; each part a value that says what it does.

Three kinds of parts work on pictures or gradients `[B, C, H, W]`, and none mixes the pictures of a batch: transforms
are what the network sees of the picture, shapers change its gradient, regularizers the picture after a step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from actmine.pipeline.network.layers import Layer, Traced

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


@dataclass(frozen=True, slots=True)
class WarmCosine:
    """Rises evenly to `most` over the first `warm` of the steps (0..1), then falls to 0 along a cosine."""

    most: float
    warm: float

    def __call__(self, share: float) -> float:
        """The value at `share`."""
        if share < self.warm:
            return self.most * (share + 0.01) / (self.warm + 0.01)
        return self.most * (1 + math.cos(math.pi * (share - self.warm) / (1 - self.warm))) / 2


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
class Guide:
    """What the data say of one picture, in 0..1 and on the CPU; None where a recipe does not ask.

    `start` `[C, H, W]` is what to begin with, `references` `[R, C, H, W]` are exemplars; both as large as the canvas.
    """

    start: Tensor | None = None
    references: Tensor | None = None


@runtime_checkable
class Comparing(Protocol):
    """An objective that compares what several layers make of a picture with what they make of its references."""

    @property
    def one_position(self) -> bool:
        """False: whole maps are compared."""

    def layers(self, traced: Traced, layer: Layer) -> list[Layer]:
        """What it reads for units of `layer`: layers that `layer` depends on, and last `layer` itself."""

    def against(self, readings: Readings, references: Tensor, unit: int) -> list[Tensor]:
        """What a picture of `unit` is compared with, a tensor a layer; `references` are `[R, C, H, W]` in 0..1."""

    def __call__(self, outputs: list[Tensor], wanted: list[Tensor]) -> Tensor:
        """One number a picture `[B]`, of the layers' outputs and what each picture is compared with, stacked."""


class Readings(Protocol):
    """The layers of an objective, of pictures in 0..1 `[R, C, H, W]`."""

    def __call__(self, pictures: Tensor, /) -> list[Tensor]:
        """A tensor a layer: `[R, U, H, W]` or `[R, U]`."""


@runtime_checkable
class Beginning(Protocol):
    """A canvas that can begin with pictures."""

    def begun(self, pictures: Tensor, seeds: Sequence[int], look: Look) -> Tensor:
        """Parameters that stand for `pictures` `[B, C, H, W]`, with a little noise of their seeds."""


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

    Of the run it needs `references` exemplars of each unit, and the mean `spectrum` of its images where that is asked.
    With `facets` a unit gets a picture for each facet, which begins with the mean of that facet's exemplars.
    """

    name: str
    source: str
    canvas: Canvas
    objective: Objective | Comparing
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
    references: int = field(default=0, kw_only=True)
    facets: bool = field(default=False, kw_only=True)
    spectrum: bool = field(default=False, kw_only=True)

    def strength(self, side: int) -> float:
        """How much of the regularizers a canvas of `side` pixels gets, 0 to 1."""
        return min(max((side - self.bare_size) / (self.full_size - self.bare_size), 0.0), 1.0)
