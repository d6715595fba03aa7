"""References: a unit's own exemplars as pictures on the canvas of its ascent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from actmine.pipeline.ascent.recipe import Size
from actmine.pipeline.exemplars.shown_alone import shown_alone
from actmine.pipeline.preprocessing.geometry import Box
from actmine.pipeline.preprocessing.images import Preprocessing, decode
from actmine.pipeline.receptive_fields.receptive_field import Field

Position = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One exemplar as the run has it: its encoded `crop` and where that lies in an original of `width` by `height`.

    `y` and `x` are the row and column of the activation, 0 where there are none; all else is in pixels.
    """

    rank: int
    crop: bytes
    y: int
    x: int
    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Placing:
    """Where exemplars go on a canvas of `size`, in whose map `position` is read (None: there are no positions).

    A crop becomes the pixels of the network's input that it came from, and lies so that its field falls on that of
    `position`. Where the field is not uniform, it lies in the middle. What the crop does not cover, as the field
    left the image there, is the network's mean colour; or, `mirrored`, the crop goes on beyond its edges, for those
    who look at textures wherever they are.
    """

    size: Size
    position: Position | None
    field: Field
    how: Preprocessing
    mirrored: bool = False

    def __call__(self, exemplars: Sequence[Exemplar]) -> Tensor:
        """Pictures in 0..1, `[R, C, H, W]`, on the CPU."""
        pictures = [self._placed(exemplar) for exemplar in exemplars]
        if not pictures:
            return torch.empty(0, self.how.channels, *self.size)
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()

    def _placed(self, exemplar: Exemplar) -> np.ndarray:
        box = self.field.box(exemplar.y, exemplar.x)
        mean = self.how.rgb(np.array(self.how.mean, np.float32))
        canvas = np.broadcast_to(mean, (*self.size, len(mean))).copy()
        if box.right <= box.left or box.bottom <= box.top:  # it sees padding only
            return canvas
        pixels = self._pixels(exemplar, box)
        top, left = self._corner(exemplar, box)
        rows, columns = _overlap(top, pixels.shape[0], self.size[0]), _overlap(left, pixels.shape[1], self.size[1])
        if self.mirrored:
            inside = pixels[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
            if not inside.size:
                inside, rows, columns = pixels, slice(0, pixels.shape[0]), slice(0, pixels.shape[1])
            return inside[_mirror(rows, inside.shape[0], self.size[0])][
                :, _mirror(columns, inside.shape[1], self.size[1])
            ]
        canvas[rows, columns] = pixels[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        return canvas

    def _corner(self, exemplar: Exemplar, box: Box) -> Position:
        """Where the box's upper left corner goes (row, column of the canvas, perhaps outside)."""
        strides = self.field.y.stride, self.field.x.stride
        if self.position is None or strides[0] is None or strides[1] is None:
            return (self.size[0] - (box.bottom - box.top)) // 2, (self.size[1] - (box.right - box.left)) // 2
        down, right = (self.position[0] - exemplar.y) * strides[0], (self.position[1] - exemplar.x) * strides[1]
        return box.top + down, box.left + right

    def _pixels(self, exemplar: Exemplar, box: Box) -> np.ndarray:
        """The pixels of the network's input in `box`, before normalization, float32 `[h, w, C]` in 0..1."""
        its = exemplar
        whole = shown_alone(decode(its.crop), (its.left, its.top), (its.width, its.height), self.how)
        pixels = whole[box.top : box.bottom, box.left : box.right]
        return self.how.colours(pixels)


def _overlap(begin: int, length: int, whole: int) -> slice:
    """The part of `whole` pixels that `length` ones from `begin` cover; empty if none."""
    low = min(max(begin, 0), whole)
    return slice(low, min(max(begin + length, low), whole))


def _mirror(covered: slice, length: int, whole: int) -> np.ndarray:
    """For each of `whole` pixels the one of `length` that is seen there, if mirrors stand at both ends of `covered`."""
    place = (np.arange(whole) - covered.start) % (2 * length)
    return np.minimum(place, 2 * length - 1 - place)
