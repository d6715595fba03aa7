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
from torch import Tensor

from actmine.pipeline.exemplars.exemplar_parts import ExemplarTask
from actmine.pipeline.exemplars.gradients import Gradients, within
from actmine.pipeline.exemplars.pictures import encode
from actmine.pipeline.exemplars.view_colours import shown
from actmine.pipeline.network import rectifiers
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.rectifiers import Rule
from actmine.pipeline.preprocessing.geometry import Box
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.words import DECONVNET, GUIDED

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
    """The network below some layers, ready to project exemplars of them by one of `METHODS` on `device`, in float32."""

    def __init__(
        self, preprocessing: Preprocessing, traced: Traced, layers: Mapping[int, Layer], device: torch.device,
        method: str,
    ) -> None:  # fmt: skip
        self.how = preprocessing
        self.gradients = Gradients(preprocessing, traced, layers, device, METHODS[method])

    def __call__(self, task: ExemplarTask, pixels: np.ndarray) -> list[View]:
        """The view of each exemplar of an image, whose network pixels are `[H, W, C]`."""
        found = self.gradients.of_pixels(torch.from_numpy(pixels), task.spots)
        return [self.found(task, place, *its) for place, its in enumerate(found)]

    def found(self, task: ExemplarTask, place: int, gradient: Tensor, where: Box) -> View:
        """The view of one exemplar of an image, whose gradient `[C, h, w]` is zero outside of `where`."""
        its = within(task.field(place), gradient, where)
        return _view(self.how.rgb(its.permute(1, 2, 0).cpu().numpy()), task, place)


def _view(values: np.ndarray, task: ExemplarTask, place: int) -> View:
    """Of the gradient `[h, w, C]` in the field: outside it is zero, but for the noise of fast convolutions."""
    field = task.field(place)
    box = field.left, field.top, field.right, field.bottom
    found, row = shown(values), int(task.rows[place])
    if found is None:
        return View(row, box, None, None)
    pixels, scale = found
    return View(row, box, scale, encode(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)))
