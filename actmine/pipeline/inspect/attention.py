"""Where in a picture a class is decided: Grad-CAM, at the last layer whose positions still have a say."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from actmine.pipeline.errors import UserError
from actmine.pipeline.inspect.head import class_scores
from actmine.pipeline.inspect.places import lie_as_the_picture, token_places
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.layouts import MAPS, MAPS_LAST, TOKEN_LAYOUTS, as_map

_NO_MAP = "no layer of this network lies on the picture in a way that is known, and has a say in the score"
_KEPT = 64  # layers: behind the last one with a say there are an attention's last steps, a norm, a head


def class_attention(traced: Traced, image: Tensor, target: int) -> tuple[np.ndarray, str]:
    """How much each pixel of the network's input counts for class `target`, `[H, W]` in 0..1, and the layer read.

    Gradient-weighted class activation mapping (Selvaraju et al., ICCV 2017): a map of positions, each channel weighed
    by the mean gradient of the class's score, what is negative cut off, stretched bilinearly over the input
    `[1, C, H, W]`; divided by its maximum, all zeros where nothing speaks for the class. The map is the last of all
    layers but linear ones at whose positions the score has a gradient: behind a transformer's last attention only the
    class token has. Tokens lie where they see the picture; class and register tokens nowhere. Raises `UserError` for
    networks without such a map.
    """
    candidates = _with_positions(traced)[-_KEPT:]
    fit = lie_as_the_picture(traced, candidates)
    layers = {layer.node: layer for layer in candidates if layer.node in fit}
    maps: dict[str, Tensor] = {}

    def see(node: str, tensor: Tensor) -> Tensor | None:
        if node not in layers:
            return None
        maps[node] = tensor
        return tensor.clone()  # for what follows, which may change it in place

    with torch.enable_grad():
        scores = class_scores(traced.run(image.clone().requires_grad_(), see))
        if scores is None or not maps:
            raise UserError(f"There is no class attention: {_NO_MAP}. Say --no-attention.")
        slopes = torch.autograd.grad(scores[0, target], list(maps.values()), allow_unused=True)
    for node, slope in reversed(list(zip(maps, slopes, strict=True))):
        layer = layers[node]
        values = None if slope is None else _on_the_picture(traced, layer, maps[node].detach(), slope)
        if values is not None:
            shown = functional.interpolate(values[None, None], image.shape[2:], mode="bilinear", align_corners=False)
            return (shown / shown.max().clamp_min(torch.finfo(shown.dtype).tiny))[0, 0].numpy(), layer.name
    raise UserError(f"There is no class attention: {_NO_MAP}. Say --no-attention.")


def _with_positions(traced: Traced) -> list[Layer]:
    """Layers of maps or tokens whose units are known, several positions each; linear ones prepare something else."""
    return [
        layer for layer in traced.known()
        if layer.layout in (MAPS, MAPS_LAST, *TOKEN_LAYOUTS) and layer.kind != "linear" and not layer.dependence
        and math.prod((layer.height or 1, layer.width or 1)) > 1
    ]  # fmt: skip


def _on_the_picture(traced: Traced, layer: Layer, values: Tensor, slope: Tensor) -> Tensor | None:
    """The class activation map `[h, w]` of a layer; None where no position has a say, or tokens lie nowhere known."""
    values, slope = (as_map(each, layer.layout, layer.height, layer.width)[0] for each in (values, slope))
    if layer.layout in TOKEN_LAYOUTS:
        places = token_places(traced, layer)
        if places is None:
            return None
        values, slope = (each[:, places, 0] for each in (values, slope))
    if not bool(slope.any()):
        return None
    return torch.einsum("u,uhw->hw", slope.mean((1, 2)), values).relu()
