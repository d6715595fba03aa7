"""Effective fields: the part of an image that matters to a unit at the place where the image drives it hardest.

An exact receptive field counts every pixel that can change an activation. Most of the gradient of the activation with
respect to the pixels lies in a much smaller part of it (Luo, Li, Urtasun, Zemel: Understanding the Effective Receptive
Field in Deep Convolutional Neural Networks, NeurIPS 2016). The *focus* is the smallest box that holds 95% of the
squared gradient, summed over channels, of the normalized input.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from actmine.pipeline.exemplars.exemplar_parts import ExemplarTask
from actmine.pipeline.exemplars.focus_box import smallest_box
from actmine.pipeline.exemplars.gradients import Gradients, within
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.preprocessing.geometry import Box, WayBack
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.receptive_fields.receptive_field import Field

Focus = tuple[int, int, Box | None]
"""A layer by number, an exemplar's row in its table, its focus (pixels of the original image; None: no gradient)."""


def is_wide(field: Field) -> bool:
    """Whether a field, away from borders, is larger than half of the input in height or width."""
    return 2 * field.y.size > field.y.length or 2 * field.x.size > field.x.length


class EffectiveField:
    """The network below some layers, ready to measure the focus of exemplars of them on `device`, always in float32."""

    def __init__(
        self, preprocessing: Preprocessing, traced: Traced, layers: Mapping[int, Layer], device: torch.device
    ) -> None:
        self.preprocessing = preprocessing
        self.gradients = Gradients(preprocessing, traced, layers, device)

    def __call__(self, task: ExemplarTask, pixels: np.ndarray) -> list[Focus]:
        """The focus of each exemplar of an image, whose network pixels are `[H, W, C]`."""
        found = self.gradients.of_pixels(torch.from_numpy(pixels), task.spots)
        return [self.found(task, place, *its) for place, its in enumerate(found)]

    def found(self, task: ExemplarTask, place: int, gradient: Tensor, where: Box) -> Focus:
        """The focus of one exemplar of an image, whose gradient `[C, h, w]` is zero outside of `where`."""
        return int(task.layers[place]), int(task.rows[place]), self._focus(task, task.field(place), gradient, where)

    def _focus(self, task: ExemplarTask, field: Box, gradient: Tensor, where: Box) -> Box | None:
        # outside the field every gradient is zero, but for the noise of fast convolutions on some devices
        found = smallest_box(energy_of(within(field, gradient, where)).cpu().numpy())
        if found is None:
            return None
        return WayBack(task.width, task.height, self.preprocessing).box(
            Box(found.left + field.left, found.top + field.top, found.right + field.left, found.bottom + field.top)
        )


def energy_of(gradient: Tensor) -> Tensor:
    """Squares `[H, W]` of a gradient `[C, H, W]`, summed over channels, relative to the largest; NaN if all is zero."""
    return (gradient / gradient.abs().amax()).square().sum(0)  # squares of tiny gradients would be zero
