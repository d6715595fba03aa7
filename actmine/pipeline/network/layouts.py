"""How a layer's tensor holds its units and positions, and the one form in which everything else reads it."""

from __future__ import annotations

import math

from torch import Tensor

MAPS, MAPS_LAST, TOKENS, SEQUENCE, FEATURES = "maps", "maps_last", "tokens", "sequence", "features"
WINDOWS, WINDOW_MAPS, TOKENS_FIRST = "windows", "window_maps", "tokens_first"
SHAPES = {
    MAPS: "[B, C, H, W]",
    MAPS_LAST: "[B, H, W, C]",
    TOKENS: "[B, T, C]",
    TOKENS_FIRST: "[T, B, C]",
    SEQUENCE: "[B, C, T]",
    FEATURES: "[B, C]",
    WINDOWS: "[B * N, ..., C]",
    WINDOW_MAPS: "[B * N, C, h, w]",
}
"""Every layout with the order of its dimensions: B images, C units, H x W positions, T tokens, N windows."""

TOKEN_LAYOUTS = {TOKENS, TOKENS_FIRST}

_BY_RANK = {(2, 1): FEATURES, (3, 1): SEQUENCE, (3, 2): TOKENS, (4, 1): MAPS, (4, 3): MAPS_LAST}


def layout_of(shape: tuple[int, ...], unit_dim: int, image_dim: int | None = 0) -> str | None:
    """The layout of a tensor of `shape` for one image, by the dimensions of its units and images; None if unknown.

    A first dimension that counts more than images is taken for windows, those of an image side by side.
    """
    rank = len(shape)
    if image_dim != 0:
        return TOKENS_FIRST if (rank, image_dim, unit_dim) == (3, 1, 2) and shape[1] == 1 else None
    if rank >= 3 and (shape[0] != 1 or rank > 4):
        return WINDOWS if unit_dim == rank - 1 else WINDOW_MAPS if (rank, unit_dim) == (4, 1) else None
    return _BY_RANK.get((rank, unit_dim)) if shape and shape[0] == 1 else None


def as_map(activations: Tensor, layout: str, height: int | None = None, width: int | None = None) -> Tensor:
    """A view of a layer's tensor with its units first: `[B, U, H, W]`; features stay `[B, U]`.

    Tokens come as a map of one column `[B, U, T, 1]`, windows as the rows of one, their places as its columns: for
    them `height` and `width`, those of the layer, are needed.
    """
    if layout == WINDOWS:
        return activations.reshape(-1, height or 1, width or 1, activations.shape[-1]).permute(0, 3, 1, 2)
    if layout == WINDOW_MAPS:
        return activations.reshape(-1, height or 1, activations.shape[1], width or 1).permute(0, 2, 1, 3)
    if layout == MAPS_LAST:
        return activations.permute(0, 3, 1, 2)
    if layout == TOKENS:
        return activations.transpose(1, 2).unsqueeze(3)
    if layout == TOKENS_FIRST:
        return activations.permute(1, 2, 0).unsqueeze(3)
    return activations.unsqueeze(3) if layout == SEQUENCE else activations


def unit_dim(layout: str) -> int:
    """The dimension that counts units; -1, where it is the last."""
    return 1 if layout in (MAPS, SEQUENCE, WINDOW_MAPS, FEATURES) else -1


def map_shape(shape: tuple[int, ...], layout: str) -> tuple[int, int | None, int | None]:
    """Units, height and width of a tensor of `shape` for one image, as `as_map` gives them; features have no size."""
    if layout == FEATURES:
        return shape[1], None, None
    if layout == SEQUENCE:
        return shape[1], shape[2], 1
    if layout == TOKENS:
        return shape[2], shape[1], 1
    if layout == TOKENS_FIRST:
        return shape[2], shape[0], 1
    if layout == WINDOWS:
        windows = shape[0] if shape[0] != 1 else math.prod(shape[1 : 1 + (len(shape) - 2) // 2])
        return shape[-1], windows, math.prod(shape[:-1]) // windows
    if layout == WINDOW_MAPS:
        return shape[1], shape[0], shape[2] * shape[3]
    return (shape[1], shape[2], shape[3]) if layout == MAPS else (shape[3], shape[1], shape[2])
