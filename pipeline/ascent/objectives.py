"""Objectives: functions that return a function from a layer's output to one number per picture."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Objective = Callable[[Tensor], Tensor]
"""Maps the output `[B, U, H, W]` or `[B, U]` of a layer to what is to rise, `[B]`."""


def centre_of_units(units: Tensor) -> Objective:
    """Picture i shows unit `units[i]`: its value in the middle of its map (row H // 2, column W // 2), or its feature.

    One position instead of the map's mean gives one centred picture instead of a texture (Øygard, deepdraw).
    """

    def objective(output: Tensor) -> Tensor:
        if output.dim() == 4:
            output = output[:, :, output.shape[2] // 2, output.shape[3] // 2]
        return output.gather(1, units[:, None])[:, 0]

    return objective


def image_activations(output: Tensor) -> Tensor:
    """What the scan reads of an output: the maximum over positions, float32 `[B, U]`."""
    return (output.amax((2, 3)) if output.dim() == 4 else output).float()
