"""Optimizers: how a gradient becomes a step. Every picture of a batch goes its own way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.ascent.recipe import Stepper


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
    return _divided(gradients, gradients.square().flatten(1).mean(1).sqrt())


def unit_mean(gradients: Tensor) -> Tensor:
    """Scales each picture's gradient to a mean size of 1; a gradient of zeros stays zero."""
    return _divided(gradients, gradients.abs().flatten(1).mean(1))


def _divided(gradients: Tensor, sizes: Tensor) -> Tensor:
    sizes = sizes.clamp_min(torch.finfo(gradients.dtype).tiny)
    return gradients / sizes.view(-1, *[1] * (gradients.dim() - 1))
