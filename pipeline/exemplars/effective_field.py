"""Effective fields: the part of an image that matters to a unit at the place where the image drives it hardest.

An exact receptive field counts every pixel that can change an activation. Most of the gradient of the activation with
respect to the pixels lies in a much smaller part of it (Luo, Li, Urtasun, Zemel: Understanding the Effective Receptive
Field in Deep Convolutional Neural Networks, NeurIPS 2016). The *focus* is the smallest box that holds 95% of the
squared gradient, summed over channels, of the normalized input.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.exemplars.exemplar_parts import ExemplarTask, Kernel
from pipeline.exemplars.focus_box import smallest_box
from pipeline.exemplars.gradients import Gradients
from pipeline.network.layers import Layer, Traced
from pipeline.preprocessing.geometry import Box, original_box
from pipeline.preprocessing.images import Preprocessing
from pipeline.receptive_fields.receptive_field import Field

Focus = tuple[int, Box | None]
"""An exemplar's row in its layer's table and its focus (pixels of the original image); None without a gradient."""


def is_wide(field: Field) -> bool:
    """Whether a field, away from borders, is larger than half of the input in height or width."""
    return 2 * field.y.size > field.y.length or 2 * field.x.size > field.x.length


class EffectiveField:
    """The network below one layer, ready to measure the focus of exemplars of it on `device`, always in float32."""

    def __init__(self, preprocessing: Preprocessing, traced: Traced, layer: Layer, device: torch.device) -> None:
        self.preprocessing = preprocessing
        self.gradients = Gradients(preprocessing, traced, layer, device)

    def __call__(self, kernel: Kernel) -> list[Focus]:
        """The focus of each exemplar of a kernel."""
        energies = _energies(self.gradients.of_kernel(kernel)).cpu().numpy()
        return [
            (int(task.rows[place]), self._focus(energy, task, place))
            for (task, place), energy in zip(kernel.of, energies, strict=True)
        ]

    def energies(self, images: Tensor, units: Sequence[int], y: Sequence[int], x: Sequence[int]) -> Tensor:
        """Squared gradients `[B, H, W]` of unit `units[i]` at (`y[i]`, `x[i]`) of image i of `[B, C, H, W]`.

        Summed over channels, relative to the largest gradient of the image. NaN where there is none at all.
        """
        return _energies(self.gradients(images, units, y, x))

    def kernel_size(self, device_memory: int | None) -> int:
        """How many images a kernel has; `device_memory` (bytes) is that of the workers' device, None the system's."""
        return self.gradients.kernel_size(device_memory)

    def _focus(self, energy: np.ndarray, task: ExemplarTask, place: int) -> Box | None:
        left, top, right, bottom = task.fields[place].tolist()
        # outside the field every gradient is zero, but for the noise of fast convolutions on some devices
        found = smallest_box(energy[top:bottom, left:right])
        if found is None:
            return None
        moved = Box(found.left + left, found.top + top, found.right + left, found.bottom + top)
        return original_box(moved, task.width, task.height, self.preprocessing)


def _energies(gradients: Tensor) -> Tensor:
    most = gradients.abs().amax((1, 2, 3), keepdim=True)  # squares of tiny gradients would be zero
    return (gradients / most).square().sum(1)
