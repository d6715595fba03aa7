"""Tokens whose vectors are far longer than the others': in vision transformers they hold what is of no place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from actmine.pipeline.network.layouts import TOKENS_FIRST
from actmine.pipeline.network.points import Read

FAR = 10.0
"""How many times as long as the median one of its image an outlier's vector is (about so in Darcet et al. 2024)."""


def norm_ratios(activations: Tensor, layout: str) -> Tensor:
    """How long each token's vector is beside the median one of its image, float32 `[B, T]`, of a layer of tokens."""
    norms = activations.float().norm(dim=-1)
    by_image = norms.t() if layout == TOKENS_FIRST else norms
    return by_image / by_image.median(1, keepdim=True).values.clamp_min(torch.finfo(torch.float32).tiny)


def outliers(activations: Tensor, layout: str, most: float) -> Tensor:
    """Which tokens are longer than `most` times the median, bool, laid out as the tensor: `[B, T]` or `[T, B]`."""
    far = norm_ratios(activations, layout) > most
    return far.t() if layout == TOKENS_FIRST else far


class WithoutOutliers(nn.Module):
    """What `read` makes of a layer of tokens, in its `layout`, whose outliers are -inf."""

    def __init__(self, read: Read, layout: str) -> None:
        super().__init__()
        self.read, self.layout = read, layout

    def forward(self, activations: Tensor, *marks: Tensor) -> Any:
        """Of a layer's tensor, perhaps with `marks` `[B]` of its images."""
        far = outliers(activations, self.layout, self.read.most_norm)
        return self.read(activations.masked_fill(far[..., None], -torch.inf), *marks)
