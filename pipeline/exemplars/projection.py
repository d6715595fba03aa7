"""Projections of a unit's activation back to pixels, which show what of an image drives the unit.

A deconvnet (Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, ECCV 2014) runs a network backwards:
it unpools with the switches of the forward pass, rectifies, and convolves with transposed filters. Guided
backpropagation (Springenberg, Dosovitskiy, Brox, Riedmiller: Striving for Simplicity, 2015) also closes ReLUs that
were closed on the way forward. Both are the input gradient of the activation with another backward rule for ReLUs: the
gradient of max pooling is unpooling, that of a convolution its transpose. Activations that are no ReLU (or ReLU6)
keep their own gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from pipeline.exemplars.exemplar_parts import ExemplarTask, Kernel
from pipeline.exemplars.gradients import Gradients
from pipeline.exemplars.pictures import encode
from pipeline.exemplars.view_colours import shown
from pipeline.network import rectifiers
from pipeline.network.layers import Layer, Traced
from pipeline.network.rectifiers import Rule
from pipeline.preprocessing.images import Preprocessing
from pipeline.words import DECONVNET, GUIDED

METHODS: Mapping[str, Rule] = {DECONVNET: rectifiers.deconvnet, GUIDED: rectifiers.guided}
"""What ReLUs do to gradients, by the method's name."""


@dataclass(frozen=True, slots=True)
class View:
    """A finished view of the exemplar in `row` of its layer's table.

    `box` is what it shows (left, top, right, bottom in pixels of the network's input). `scale`, the value at full
    colour, and `picture`, encoded, are None where no gradient arrives.
    """

    row: int
    box: tuple[int, int, int, int]
    scale: float | None
    picture: bytes | None


class Projection:
    """The network below one layer, ready to project exemplars of it by one of `METHODS` on `device`, in float32."""

    def __init__(
        self, preprocessing: Preprocessing, traced: Traced, layer: Layer, device: torch.device, method: str
    ) -> None:
        self.gradients = Gradients(preprocessing, traced, layer, device, METHODS[method])

    def __call__(self, kernel: Kernel) -> list[View]:
        """The view of each exemplar of a kernel."""
        values = self.gradients.of_kernel(kernel).permute(0, 2, 3, 1).cpu().numpy()
        return [_view(of_image, task, place) for (task, place), of_image in zip(kernel.of, values, strict=True)]

    def kernel_size(self, device_memory: int | None) -> int:
        """How many images a kernel has; `device_memory` (bytes) is that of the workers' device, None the system's."""
        return self.gradients.kernel_size(device_memory)


def _view(values: np.ndarray, task: ExemplarTask, place: int) -> View:
    left, top, right, bottom = box = tuple(task.fields[place].tolist())
    # outside the field every gradient is zero, but for the noise of fast convolutions on some devices
    found = shown(values[top:bottom, left:right])
    row = int(task.rows[place])
    if found is None:
        return View(row, box, None, None)
    pixels, scale = found
    return View(row, box, scale, encode(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)))
