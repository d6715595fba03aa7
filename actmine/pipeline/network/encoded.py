"""A layer whose units are latents of a dictionary: what a read makes of them, position by position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from actmine.pipeline.dictionaries.dictionary import Dictionary
from actmine.pipeline.network.layer import Latents, Layer
from actmine.pipeline.network.layouts import FEATURES, TOKEN_LAYOUTS, TOKENS_FIRST, unit_dim
from actmine.pipeline.network.points import Read
from actmine.pipeline.network.token_norms import outliers

_SPAN = 4096  # latents whose activations are there together, where a read can do with fewer than all


class Encoded(nn.Module):
    """What `read` makes of the latents of a layer's tensor; of `heights`, before any activation, where so asked.

    Very many are made a few thousand at a time, where the read says how results are joined.
    """

    def __init__(self, dictionary: Dictionary, its: Latents, read: Read | None = None, heights: bool = False) -> None:
        super().__init__()
        self.dictionary, self.its, self.read, self.heights = dictionary, its, read, heights

    @property
    def pointwise(self) -> bool:
        """Each position of its map depends on that position of the layer's, and there are all of them."""
        return self.read is None and self.its.pool == "max" and self.its.count is None

    def forward(self, activations: Tensor, *marks: Tensor) -> Any:
        """Of a layer's tensor, in the layout of that layer, perhaps with `marks` `[B]` of its images."""
        vectors, back = vectors_of(activations, self.its, self.read.most_norm if self.read else 0.0)
        if self.heights:
            return self._read(back(self.dictionary.heights(vectors)), *marks)
        prepared, latents = self.dictionary.prepared(vectors), self.dictionary.latents
        if self.read is None or self.read.parts is None or latents <= _SPAN:
            return self._read(back(self.dictionary.encoded(prepared, 0, latents)), *marks)
        fewer = self.dictionary.without_silent(prepared)
        prepared, count = (fewer.prepared, fewer.count) if fewer else (prepared, latents)
        spans = ((start, min(start + _SPAN, count)) for start in range(0, count, _SPAN))
        parts = [self._read(back(self.dictionary.encoded(prepared, *span)), *marks) for span in spans]
        found = self.read.parts.joined(parts)
        return self.read.parts.spread(found, fewer.at) if fewer else found

    def _read(self, activations: Tensor, *marks: Tensor) -> Any:
        return activations if self.read is None else self.read(activations, *marks)


def vectors_of(activations: Tensor, its: Latents, most_norm: float = 0.0) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The vectors `[P, width]` at all positions of a layer's tensor that count, and what lays out latents `[P, N]`.

    Latents of tokens that are longer than `most_norm` times the median, if that is not 0, are -inf.
    """
    dim = unit_dim(its.of.layout)
    images = 1 if its.of.layout == TOKENS_FIRST else 0
    far = outliers(activations, its.of.layout, most_norm) if most_norm and has_tokens(its.of) else None
    if its.count is not None:
        activations = activations.narrow(1 - images, its.first, its.count)
        far = None if far is None else far.narrow(1 - images, its.first, its.count)
    spread = activations.movedim(dim, -1)
    shape = spread.shape[:-1]

    def back(latents: Tensor) -> Tensor:
        laid = latents.unflatten(0, shape)
        if far is not None:
            laid = laid.masked_fill(far[..., None], -torch.inf)
        if its.pool == "max":
            return laid.movedim(-1, dim)
        dims = [each for each in range(len(shape)) if each != images]
        return laid.mean(dims) if its.pool == "mean" else laid.sum(dims)

    return spread.reshape(-1, spread.shape[-1]), back


def has_tokens(layer: Layer) -> bool:
    """Whether the positions of a layer are tokens, some of which may be of no patch."""
    return layer.layout in TOKEN_LAYOUTS


def pooled(layout: str, pool: str) -> str:
    """The layout of latents that are pooled so, of a layer of another `layout`."""
    return layout if pool == "max" else FEATURES
