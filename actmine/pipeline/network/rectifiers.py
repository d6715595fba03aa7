"""What may stand for the ReLUs of a network: functions that rectify, or nearly, and hand gradients on as they see fit.

A rule says what replaces a ReLU that clips at `most`: 6 for a ReLU6, infinity for all others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from actmine.pipeline.network.points import Read

Rule = Callable[[float], Read]

REDIRECTED = -1.0
"""The slope that stands for ReLUs which hand on gradients that they would block, and rectify as they always do."""


class Rectifier(nn.Module):
    """What a rule says, as a module."""

    def __init__(self, read: Read) -> None:
        super().__init__()
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        """Rectifies `x`, any shape with the batch first."""
        rectified: Tensor = self.read(x)
        return rectified


def sloped(slope: float) -> Rule | None:
    """The rule of a recipe's slope: None, the network's own ReLUs, for 0; `redirected` for `REDIRECTED`."""
    if slope == REDIRECTED:
        return redirected
    return leaky(slope) if slope else None


def leaky(slope: float) -> Rule:
    """ReLUs that leak, so that a unit which does not fire still says in which direction it would (deepdraw)."""
    return lambda most: Read(functional.leaky_relu if most == math.inf else leaky_relu6, (slope,))


def redirected(most: float) -> Read:
    """ReLUs that redirect the gradients of a picture which they would block altogether (lucid)."""
    return Read(redirected_relu, (most,))


def deconvnet(most: float) -> Read:
    """ReLUs that rectify gradients on their way back, whatever came forward (Zeiler and Fergus 2014)."""
    return Read(deconvnet_relu, (most,))


def guided(most: float) -> Read:
    """ReLUs that rectify gradients and hand them on only where they were open (Springenberg et al. 2015)."""
    return Read(guided_relu, (most,))


def leaky_relu6(x: Tensor, slope: float) -> Tensor:
    """ReLU6 that leaks on both sides: below 0 and above 6 it goes on with `slope`."""
    return functional.leaky_relu(x, slope) - (1 - slope) * functional.relu(x - 6)


class _Redirected(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, most: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.most = most
        return x.clamp(0, most)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        usual = gradient.masked_fill((x < 0) | (x > ctx.most), 0)
        further_away = ((x < 0) & (gradient < 0)) | ((x > ctx.most) & (gradient > 0))
        passes = (usual != 0).flatten(1).any(1).view(-1, *[1] * (x.dim() - 1))
        return torch.where(passes, usual, gradient.masked_fill(further_away, 0)), None


def redirected_relu(x: Tensor, most: float) -> Tensor:
    """A ReLU that clips at `most`; a picture whose whole gradient it would block gets it as if it let it through.

    But for what would lead further away: below zero only gradients that ask for more are handed on (lucid,
    `redirected_relu_grad`), of pictures through which nothing else passes.
    """
    result: Tensor = _Redirected.apply(x, most)
    return result


class _Deconvnet(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, most: float) -> Tensor:
        return x.clamp(0, most)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.clamp(min=0), None


def deconvnet_relu(x: Tensor, most: float) -> Tensor:
    """A ReLU that clips at `most` and hands on every positive gradient and no other."""
    result: Tensor = _Deconvnet.apply(x, most)
    return result


class _Guided(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, most: float) -> Tensor:
        rectified = x.clamp(0, most)
        ctx.save_for_backward(rectified)
        ctx.most = most
        return rectified

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (rectified,) = ctx.saved_tensors
        closed = (rectified <= 0) | (rectified >= ctx.most)
        return gradient.clamp(min=0).masked_fill(closed, 0), None


def guided_relu(x: Tensor, most: float) -> Tensor:
    """A ReLU that clips at `most` and hands on the positive gradients of what it let through."""
    result: Tensor = _Guided.apply(x, most)
    return result
