"""Optimizers: how a gradient becomes a step. Every picture of a batch goes its own way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from actmine.pipeline.ascent.recipe import Stepper


@dataclass(frozen=True, slots=True)
class Plain:
    """Gradient ascent: the step times the gradient."""

    def begin(self, parameters: Tensor) -> Stepper:
        """Remembers nothing."""
        return lambda parameters, gradient, step, heights: parameters + step * gradient


@dataclass(frozen=True, slots=True)
class UnitRms:
    """Steps whose root mean square is the step's length."""

    def begin(self, parameters: Tensor) -> Stepper:
        """Remembers nothing."""
        return lambda parameters, gradient, step, heights: parameters + step * unit_rms(gradient)


@dataclass(frozen=True, slots=True)
class UnitMean:
    """Steps whose mean size is the step's length: step / mean |g|, as in DeepDream and Øygard's deepdraw."""

    def begin(self, parameters: Tensor) -> Stepper:
        """Remembers nothing."""
        return lambda parameters, gradient, step, heights: parameters + step * unit_mean(gradient)


@dataclass(frozen=True, slots=True)
class Steady:
    """Gradient ascent at a rate that is found, not given: the step divided by each picture's steepest gradient so far.

    Gradients of a network's first layers and its last differ by orders of magnitude, and so do those of a unit that
    hardly fires and one that does. A gradient's size is its root mean square. Within one ascent rates only fall.
    """

    def begin(self, parameters: Tensor) -> Stepper:
        """Remembers the size of the steepest gradient."""
        steepest = torch.zeros(len(parameters), device=parameters.device)

        def step_up(parameters: Tensor, gradient: Tensor, step: float, heights: Tensor) -> Tensor:
            torch.maximum(steepest, _rms(gradient), out=steepest)
            return parameters + step * _divided(gradient, steepest)

        return step_up


@dataclass(frozen=True, slots=True)
class Progress:
    """Steps that promise a share of what is left to climb: `progress01` of Yosinski's deep-visualization-toolbox.

    There, heights are probabilities, and a step is as long as promises, to first order, min(`early`, `late` times what
    is missing to 1). Activations have no such end, so one is estimated for each picture: what the gradient promises at
    the start to one that follows it with a natural picture's contrast, whose root mean square is the `step`; the
    largest estimate so far counts. For a linear unit it is exact.
    """

    early: float = 0.02
    late: float = 0.1

    def begin(self, parameters: Tensor) -> Stepper:
        """Remembers where each picture began and the end it has been promised."""
        begun: list[Tensor] = []
        end = torch.full((len(parameters),), -torch.inf, device=parameters.device)

        def step_up(parameters: Tensor, gradient: Tensor, step: float, heights: Tensor) -> Tensor:
            if not begun:
                begun.append(heights)
            squared = gradient.square().flatten(1).sum(1)
            reach = step * (gradient[0].numel() * squared).sqrt()
            torch.maximum(end, begun[0] + reach, out=end)
            wanted = torch.minimum(self.early * (end - begun[0]), self.late * (end - heights)).clamp_min(0)
            return parameters + _divided(gradient, squared) * _per_picture(wanted, gradient)

        return step_up


@dataclass(frozen=True, slots=True)
class Adam:
    """Adam (Kingma and Ba, ICLR 2015); with `nesterov` NAdam (Dozat 2016)."""

    betas: tuple[float, float] = (0.9, 0.999)
    nesterov: bool = False

    def begin(self, parameters: Tensor) -> Stepper:
        """Its moments begin at zero."""
        kind: Callable[..., torch.optim.Optimizer] = torch.optim.NAdam if self.nesterov else torch.optim.Adam
        held = parameters.detach().clone()
        optimizer = kind([held], lr=1.0, betas=self.betas)

        def step_up(parameters: Tensor, gradient: Tensor, step: float, heights: Tensor) -> Tensor:
            held.copy_(parameters)
            held.grad = -gradient
            optimizer.param_groups[0]["lr"] = step
            optimizer.step()
            return held.clone()

        return step_up


def unit_rms(gradients: Tensor) -> Tensor:
    """Scales each picture's gradient to a root mean square of 1; a gradient of zeros stays zero."""
    return _divided(gradients, _rms(gradients))


def unit_mean(gradients: Tensor) -> Tensor:
    """Scales each picture's gradient to a mean size of 1; a gradient of zeros stays zero."""
    return _divided(gradients, gradients.abs().flatten(1).mean(1))


def _rms(gradients: Tensor) -> Tensor:
    return gradients.square().flatten(1).mean(1).sqrt()


def _divided(gradients: Tensor, sizes: Tensor) -> Tensor:
    return gradients / _per_picture(sizes.clamp_min(torch.finfo(gradients.dtype).tiny), gradients)


def _per_picture(numbers: Tensor, like: Tensor) -> Tensor:
    return numbers.view(-1, *[1] * (like.dim() - 1))
