"""The exact receptive field of every position of every layer: which pixels of the network's input can change it.

The network runs once on noise while `dependence` follows what every number depends on. Beside the exact box of each
position there is the ideal field, as if the image had no borders (Araujo, Norris, Sim: Computing Receptive Fields of
Convolutional Neural Networks, Distill 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.layouts import as_map
from actmine.pipeline.network.shapes import noise
from actmine.pipeline.preprocessing.geometry import Box
from actmine.pipeline.receptive_fields.dependence import following
from actmine.pipeline.receptive_fields.dependence_shadow import Ideal, Shadow, line
from actmine.pipeline.receptive_fields.field_cache import FieldCache


@dataclass(frozen=True, slots=True)
class Axis:
    """Fields along one axis of an input of `length` pixels, as they are away from its borders.

    Row i sees `size` pixels from `start + i * stride`; `stride` is None where fields are not uniform, and `size` is
    then that of the largest.
    """

    length: int
    start: int
    stride: int | None
    size: int

    def clipped(self, row: int) -> bool:
        """The field of `row`, as it would be without borders, leaves the input."""
        if self.stride is None:
            return self.size > self.length
        begin = self.start + row * self.stride
        return begin < 0 or begin + self.size > self.length


@dataclass(frozen=True, slots=True)
class Field:
    """The fields of all positions of one layer; `note` says why it is the whole input where that is a guess.

    `bounds` `[rows, columns, 4]` holds left, top, right and bottom (int32, pixels, half-open, inside the input) of each
    position; a layer without positions has one. A position that sees nothing but padding has left > right.
    """

    y: Axis
    x: Axis
    bounds: np.ndarray
    note: str | None = None

    @property
    def whole(self) -> bool:
        """Every position sees the whole input."""
        return bool((self.bounds == (0, 0, self.x.length, self.y.length)).all())

    def box(self, row: int, column: int) -> Box:
        """The field of one position, clipped to the input (pixels of the network's input).

        A box is never empty: what sees nothing but padding gets the last pixel.
        """
        left, top, right, bottom = self.bounds[row, column].tolist()
        if right <= left or bottom <= top:
            return Box(self.x.length - 1, self.y.length - 1, self.x.length, self.y.length)
        return Box(left, top, right, bottom)

    def clipped(self, row: int, column: int) -> bool:
        """The field of one position leaves the input."""
        return self.y.clipped(row) or self.x.clipped(column)


def receptive_fields(traced: Traced, layers: Sequence[Layer]) -> dict[str, Field]:
    """The field of each layer by name; a layer without positions has one row and one column.

    What has been found for the same network before is read from the user's cache.
    """
    cache = FieldCache(traced)
    known = {
        key: Field(Axis(*rows), Axis(*columns), bounds, note) for key, ((rows, columns), bounds, note) in cache.read()
    }
    missing = [layer.own for layer in layers if _key(layer.own) not in known]
    if missing:
        known |= {_key(layer): field for layer, field in _found(traced, missing)}
        cache.write(
            {key: ((_plain(field.y), _plain(field.x)), field.bounds, field.note) for key, field in known.items()}
        )
    return {layer.name: _of_latents(layer, known[_key(layer.own)]) for layer in layers}


def _of_latents(layer: Layer, field: Field) -> Field:
    """The field of a layer of latents, of that of the layer which they are made of: theirs, or that of all together."""
    its = layer.latents
    if its is None:
        return field
    bounds = field.bounds if its.count is None else field.bounds[its.first : its.first + its.count]
    if its.pool == "max":
        return replace(field, bounds=bounds)
    left, top, right, bottom = (bounds[..., side] for side in range(4))
    whole = np.array([[[left.min(), top.min(), right.max(), bottom.max()]]], np.int32)
    rows, columns = (Axis(axis.length, 0, None, int(whole[0, 0, 2 + at] - whole[0, 0, at]))
                     for axis, at in ((field.y, 1), (field.x, 0)))  # fmt: skip
    return Field(rows, columns, whole, field.note)


def _key(layer: Layer) -> str:
    return f"{layer.layout} {layer.node}"


def _plain(axis: Axis) -> tuple[int, int, int | None, int]:
    return axis.length, axis.start, axis.stride, axis.size


def _found(traced: Traced, layers: Sequence[Layer]) -> list[tuple[Layer, Field]]:
    of_node: dict[str, list[Layer]] = {}
    for layer in layers:
        of_node.setdefault(layer.node, []).append(layer)
    images = noise(traced.module, traced.input_shape)
    found: list[tuple[Layer, Field]] = []
    with following(images) as network:

        def see(node: str, tensor: Tensor) -> None:
            for layer in of_node.get(node, ()):
                found.append((layer, _field(network.shadow_of(tensor), layer, traced.input_shape)))

        traced.run(images, see)
    return found


def _field(shadow: Shadow, layer: Layer, shape: tuple[int, int, int]) -> Field:
    _, height, width = shape
    top, bottom, left, right = (
        _positions(plane, layer).amin(0).cpu().double().numpy() for plane in shadow.planes
    )  # [rows, columns]
    bounds = np.stack([left.clip(max=width), top.clip(max=height), (-right).clip(min=0), (-bottom).clip(min=0)], -1)
    bounds = bounds.astype(np.int32)
    rows, columns = (_axis(shadow.ideal[axis], layer, bounds, axis, shape[1 + axis]) for axis in (0, 1))
    return Field(rows, columns, bounds, shadow.note)


def _positions(plane: Tensor, layer: Layer) -> Tensor:
    """`[units, rows, columns]` of a plane of a layer's tensor."""
    units = as_map(plane, layer.layout, layer.height, layer.width)
    return units.reshape(-1, 1, 1) if layer.height is None else units[0]


def _axis(ideal: Ideal | None, layer: Layer, bounds: np.ndarray, axis: int, length: int) -> Axis:
    sizes = (bounds[..., 3] - bounds[..., 1], bounds[..., 2] - bounds[..., 0])[axis]
    loose = Axis(length, 0, None, int(sizes.max(initial=0)))
    if ideal is None:
        return loose
    if ideal.where is None or ideal.stride is None:
        return Axis(length, ideal.start, None, ideal.size)
    where = _positions(ideal.where, layer)
    if layer.height is None:
        known = where[torch.isfinite(where)]
        if not len(known):
            return loose
        low, high = int(known.min()), int(known.max())
        stride = ideal.stride if low == high else None
        return Axis(length, ideal.start + low * ideal.stride, stride, ideal.size + (high - low) * abs(ideal.stride))
    found = line(where, [axis + 1])
    if found is None or ideal.stride * found[2] <= 0:
        return loose
    return Axis(length, ideal.start + found[1] * ideal.stride, ideal.stride * found[2], ideal.size)
