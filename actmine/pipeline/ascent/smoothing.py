"""Total variation denoising, and gradients that count for more in the middle of the picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from actmine.pipeline.ascent.recipe import Moment


@dataclass(frozen=True, slots=True)
class Smoothing:
    """Total variation denoising of weight `weight` (colours in 0..1) after every step; less on small canvases.

    Nguyen, Yosinski, Clune 2016, by the method that they used (Goldstein, Osher 2009) or any that solves the same.
    """

    weight: float
    rounds: int = 3

    def __call__(self, pictures: Tensor, now: Moment) -> Tensor:
        """Pictures of flatter areas whose edges stay."""
        return denoised(pictures, self.weight * now.strength, self.rounds)


@dataclass(frozen=True, slots=True)
class CentreWeight:
    """Weighs gradients by a bell around the middle, of deviation `sigma` (share of the picture's sides).

    Nguyen, Yosinski, Clune 2016 begin ascents in the middle so that one object grows there and no others beside it.
    """

    sigma: float

    def __call__(self, gradients: Tensor, now: Moment) -> Tensor:
        """The gradients; on small canvases all count more alike."""
        bells = [
            torch.exp(-0.5 * (torch.linspace(-0.5, 0.5, length, device=gradients.device) / self.sigma) ** 2)
            for length in gradients.shape[2:]
        ]
        bell = bells[0][:, None] * bells[1]
        return gradients * (1 - now.strength + now.strength * bell)


def denoised(pictures: Tensor, weight: float, rounds: int) -> Tensor:
    """The pictures u `[B, C, H, W]` that make |u - pictures|² / 2 + weight * TV(u) small, nearly.

    Each channel by itself, total variation as the sum of gradient lengths: `rounds` of Chambolle's projection (An
    Algorithm for Total Variation Minimization and Applications, 2004), sped up as by Beck and Teboulle (2009).
    """
    if weight <= 0:
        return pictures
    field = before = torch.zeros(2, *pictures.shape, device=pictures.device)
    at, pace = field, 1.0
    for _ in range(rounds):
        ahead = at + _differences(pictures + weight * _divergence(at)) / (8 * weight)
        field = ahead / ahead.square().sum(0, keepdim=True).sqrt().clamp_min(1)
        faster = (1 + (1 + 4 * pace**2) ** 0.5) / 2
        at = field + (pace - 1) / faster * (field - before)
        before, pace = field, faster
    return pictures + weight * _divergence(field)


def _differences(pictures: Tensor) -> Tensor:
    """To the next pixel below and to the right, `[2, B, C, H, W]`; 0 at the last ones."""
    found = torch.zeros(2, *pictures.shape, device=pictures.device)
    found[0, :, :, :-1] = pictures[:, :, 1:] - pictures[:, :, :-1]
    found[1, :, :, :, :-1] = pictures[:, :, :, 1:] - pictures[:, :, :, :-1]
    return found


def _divergence(field: Tensor) -> Tensor:
    """Minus the adjoint of `_differences`."""
    down, right = field[0].clone(), field[1].clone()
    down[:, :, 1:-1] -= field[0][:, :, :-2]
    down[:, :, -1] = -field[0][:, :, -2]
    right[:, :, :, 1:-1] -= field[1][:, :, :, :-2]
    right[:, :, :, -1] = -field[1][:, :, :, -2]
    return down + right
