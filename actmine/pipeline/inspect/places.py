"""Where positions lie on the picture: maps as it lies itself, tokens of patches on their grid, all others nowhere."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from actmine.pipeline.network.batch_check import two_images
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.layouts import TOKEN_LAYOUTS, as_map
from actmine.pipeline.network.points import Read


def lie_as_the_picture(traced: Traced, layers: Sequence[Layer]) -> set[str]:
    """The nodes of those of `layers` of maps whose rows and columns are those of the picture; of tokens all.

    What a change of the upper corners changes lies above what the lower ones change, left and right alike; and so
    with columns. Windows by places, or heads by tokens, do not pass for a picture.
    """
    by_node = {layer.node: layer for layer in layers}
    found = {layer.node for layer in layers if layer.layout in TOKEN_LAYOUTS}

    def see(node: str, tensor: Tensor) -> None:
        layer = by_node.get(node)
        if layer is None or node in found:
            return
        maps = as_map(tensor, layer.layout, layer.height, layer.width)
        weights = (maps[1:] - maps[:1]).abs().sum(1)  # [corners, H, W]
        whole = weights.sum((1, 2))
        fit = bool((whole > 0).all())
        for axis in (1, 2):  # rows, then columns
            places = torch.arange(weights.shape[axis], dtype=weights.dtype, device=weights.device)
            begin, along, across, _ = ((weights.sum(3 - axis) * places).sum(1) / whole).tolist()
            one, other = (across, along) if axis == 1 else (along, across)
            fit = fit and (weights.shape[axis] == 1 or one - begin > 2 * abs(other - begin))
        if fit:
            found.add(node)

    with torch.no_grad():
        traced.run(_with_corners(traced, 4)[[0, 2, 3, 4, 5]], see)
    return found


def _with_corners(traced: Traced, share: int) -> Tensor:
    """An image, another, and the first with each of its corners changed, upper ones first: `[6, C, H, W]`.

    A corner is 1 / `share` of either side.
    """
    base, other = two_images(traced.module, traced.input_shape)
    _, height, width = traced.input_shape
    corners = [base.clone() for _ in range(4)]
    down, right = max(height // share, 1), max(width // share, 1)
    for corner, rows in enumerate((slice(down), slice(-down, None))):
        for side, columns in enumerate((slice(right), slice(-right, None))):
            corners[2 * corner + side][:, rows, columns] += 2 + other[:, rows, columns].abs()
    return torch.stack([base, other, *corners])


def token_places(traced: Traced, layer: Layer) -> Tensor | None:
    """Which tokens of a layer lie where, int64 `[h, w]`; None where they do not lie row by row on a grid.

    Told by the first layer of as many tokens, before attention has mixed them: tokens that no image changes are none of
    patches, and the four corners of an image change the corners of the grid most.
    """
    like = (layer.height, layer.layout in TOKEN_LAYOUTS)
    first = next(each for each in traced.known() if (each.height, each.layout in TOKEN_LAYOUTS) == like)
    read = Read(as_map, (first.layout, first.height, first.width))
    with torch.no_grad():
        (tokens,) = traced.reading([first], [read], tuple)(_with_corners(traced, 28))
    changes = (tokens[1:] - tokens[0]).abs().sum((1, 3))  # [other and corners, T]
    patches = changes[0].nonzero()[:, 0]
    if len(patches) < 4:
        return None
    begin, end, start_of_last, last = changes[1:, patches].argmax(1).tolist()
    across = end + 1
    if begin != 0 or last != len(patches) - 1 or len(patches) % across or start_of_last != len(patches) - across:
        return None
    return patches.reshape(-1, across)
