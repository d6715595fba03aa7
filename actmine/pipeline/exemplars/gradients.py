"""Gradients of units at single positions with respect to the network's input.

On a CPU an image has one way forward for all of its positions; on a GPU positions go forward and back in batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, fx, nn

from actmine.pipeline.exemplars.spots import Spot, in_batches, picked
from actmine.pipeline.network.devices import in_halves
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.partial_gradients import Kept, PartialGradients
from actmine.pipeline.network.rectifiers import Rule
from actmine.pipeline.network.shapes import elements
from actmine.pipeline.network.subnetwork import subnetwork
from actmine.pipeline.preprocessing.geometry import Box
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.preprocessing.normalize import Normalize

TOGETHER = 16
"""Positions that go back together on a GPU, of networks that are not very large: it has a say in the last bits."""
_MOST_NUMBERS = 1 << 30  # inside the network, of all that go together: about 4 GB
_SMALL = 0.9  # share of the numbers below a layer up to which it pays to follow those that a position depends on


class Gradients:
    """The network below some `layers`, by number, on `device`, always in float32.

    A `rule` says what ReLUs make of gradients. On a CPU, where a position depends on a part of the maps below, only
    that is followed; otherwise autograd goes back through whole maps. Elsewhere they are `batched` (`in_batches`).
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        traced: Traced,
        layers: Mapping[int, Layer],
        device: torch.device,
        rule: Rule | None = None,
    ) -> None:
        self.device, self.batched = device, in_batches(device)
        self.normalize = Normalize(preprocessing, device)
        self._place = {number: place for place, number in enumerate(layers)}
        network = subnetwork(traced, list(layers.values()), rule)
        # a scan may have turned the weights to channels_last or not: here they always are, for the same last bits
        self.network: nn.Module = network.to(device).to(memory_format=torch.channels_last)
        self.together = 1
        if self.batched and not any(layer.dependence for layer in layers.values()):
            self.together = max(1, min(TOGETHER, _MOST_NUMBERS // max(elements(network, traced.input_shape), 1)))
        self.partial: PartialGradients | None = None
        if isinstance(network, fx.GraphModule) and not self.batched:
            self.partial = PartialGradients(network, traced.input_shape)

    def of_pixels(self, pixels: Tensor, spots: Iterable[Spot]) -> Iterator[tuple[Tensor, Box]]:
        """As `__call__`, for network pixels `[H, W, C]`."""
        return self(self.normalize(pixels[None].to(self.device)), spots)

    def __call__(self, image: Tensor, spots: Iterable[Spot]) -> Iterator[tuple[Tensor, Box]]:
        """For each of `spots` the gradient `[C, h, w]` in a box of a normalized image `[1, C, H, W]`, else zero."""
        spots = list(spots)
        some = {spot for spot in spots if self._follows(spot)}
        with torch.set_grad_enabled(len(some) < len(spots)):
            image = image.detach().requires_grad_(len(some) < len(spots))
            kept = None
            if self.partial is not None:
                kept, outputs = self.partial.forward(image)
            else:
                outputs = self.network(image)
        whole = Box(0, 0, image.shape[3], image.shape[2])
        for spot in spots:
            if spot in some:
                yield self._followed(image, kept, spot, whole)
            else:
                yield self._through(image, outputs, spot), whole

    def in_batches(
        self, pixels: Sequence[np.ndarray], spots: Sequence[Sequence[Spot]]
    ) -> Iterator[tuple[int, int, Tensor]]:
        """Gradients `[C, H, W]` of the spots in each of several images, whose network pixels are `[H, W, C]`.

        With the number of the image and the place among its spots, layer by layer; on the CPU, wherever they were
        made. Each position has an image of its own in a batch, and batches are whole: no gradient depends on what else
        is asked for.
        """
        rows = sorted(
            (self._place[spot[0]], number, at) for number, its in enumerate(spots) for at, spot in enumerate(its)
        )
        for begin in range(0, len(rows), self.together):
            some = rows[begin : begin + self.together]
            full = some + some[-1:] * (self.together - len(some))
            found = in_halves(partial(self._of_rows, pixels, spots), full)
            for (_, number, at), gradient in zip(some, found, strict=False):
                yield number, at, gradient

    def _of_rows(
        self, pixels: Sequence[np.ndarray], spots: Sequence[Sequence[Spot]], rows: Sequence[tuple[int, int, int]]
    ) -> list[Tensor]:
        """Gradients of rows of `in_batches`: the place of a layer, the number of an image, which of its spots."""
        stacked = torch.from_numpy(np.stack([pixels[number] for _, number, _ in rows]))
        where = np.array([(place, row, *spots[number][at][1:]) for row, (place, number, at) in enumerate(rows)])
        return list(self._back(self.normalize(stacked.to(self.device)), where).cpu())

    def _back(self, images: Tensor, spots: np.ndarray) -> Tensor:
        """Gradients `[B, C, H, W]` of one position of each image of a batch."""
        with torch.enable_grad():
            images = images.detach().requires_grad_()
            heights, _ = picked(self.network(images), spots)
            if not heights.requires_grad:
                return torch.zeros_like(images)
            (gradient,) = torch.autograd.grad(heights.sum(), images, allow_unused=True)
        return torch.zeros_like(images) if gradient is None else gradient

    def _follows(self, spot: Spot) -> bool:
        layer, _, y, x = spot
        return self.partial is not None and self.partial.share((self._place[layer], y, x)) < _SMALL

    def _followed(self, image: Tensor, kept: Kept | None, spot: Spot, whole: Box) -> tuple[Tensor, Box]:
        layer, unit, y, x = spot
        assert self.partial is not None
        assert kept is not None
        with torch.no_grad():
            found = self.partial.gradient(kept, (self._place[layer], y, x), unit)
        if found is None:
            return torch.zeros_like(image[0]), whole
        gradient, (rows, columns) = found
        return gradient, Box(columns.begin, rows.begin, columns.end, rows.end)

    def _through(self, image: Tensor, outputs: list[Tensor], spot: Spot) -> Tensor:
        layer, unit, y, x = spot
        output = outputs[self._place[layer]]
        value = output[0, unit, y, x] if output.dim() == 4 else output[0, unit]
        if not value.requires_grad:
            return torch.zeros_like(image[0])
        (gradient,) = torch.autograd.grad(value, image, retain_graph=True, allow_unused=True)
        # none: there is no way back to the pixels that a gradient could take
        return torch.zeros_like(image[0]) if gradient is None else gradient[0]


def within(box: Box, gradient: Tensor, where: Box) -> Tensor:
    """The part `[C, h, w]` in a box of a gradient that is zero outside of `where`."""
    if (where.left, where.top) == (box.left, box.top) and (where.right, where.bottom) == (box.right, box.bottom):
        return gradient
    found = gradient.new_zeros(gradient.shape[0], box.bottom - box.top, box.right - box.left)
    left, top = max(box.left, where.left), max(box.top, where.top)
    right, bottom = min(box.right, where.right), min(box.bottom, where.bottom)
    if left < right and top < bottom:
        found[:, top - box.top : bottom - box.top, left - box.left : right - box.left] = gradient[
            :, top - where.top : bottom - where.top, left - where.left : right - where.left
        ]
    return found
