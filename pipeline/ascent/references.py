"""References: a unit's own exemplars as pictures on the canvas of its ascent, read from a mined run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from pipeline.ascent.recipe import Size
from pipeline.errors import UserError
from pipeline.exemplars.crop_check import shown_alone
from pipeline.exemplars.crops import encode
from pipeline.exemplars.exemplar_columns import with_bands
from pipeline.exemplars.pictures import Pixels
from pipeline.preprocessing.geometry import Box
from pipeline.preprocessing.images import Preprocessing, decode
from pipeline.readings.keep import TOP
from pipeline.receptive_fields.receptive_field import Field
from pipeline.run import Run
from pipeline.storage.files import table_file
from pipeline.storage.parquet import parquet_file
from schemas.crops import BOX

_COLUMNS = ["unit", "rank", "band", "activation", "image_id", "y", "x", *BOX, "crop"]
_READ_AT_ONCE = 16
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


def read_exemplars(run: Run, layer: str, units: Iterable[int], count: int) -> dict[int, tuple[Exemplar, ...]]:
    """Up to `count` exemplars of each unit that make it fire, best first; of one that never fires, all the same.

    An image of which the run holds a reduced picture alone is read again; where it has gone, the picture has to do.
    Raises `UserError` where the run has no exemplars of the layer.
    """
    wanted = sorted(set(units))
    try:
        with parquet_file(table_file(run.path, "exemplars", layer)) as file:
            column = file.schema_arrow.get_field_index("unit")
            groups = [group for group in range(file.num_row_groups) if _holds(file, group, column, wanted)]
            rows = file.read_row_groups(groups, [name for name in _COLUMNS if name in file.schema_arrow.names])
    except FileNotFoundError:
        raise UserError(
            f"{run.path} has no exemplars of layer {layer!r}, from which its units would be drawn. "
            "`make mine` mines them."
        ) from None
    rows = with_bands(rows.filter(pa.compute.is_in(rows["unit"], pa.array(wanted, pa.int32()))))
    of_unit: dict[int, list[dict[str, Any]]] = {unit: [] for unit in wanted}
    for row in rows.filter(pa.compute.equal(rows["band"], TOP)).to_pylist():
        of_unit[row["unit"]].append(row)
    chosen = [row for unit in wanted for row in _firing(of_unit[unit])[:count]]
    with ThreadPoolExecutor(_READ_AT_ONCE, "reference") as pool:
        crops = list(pool.map(_crop, [run.pictures.of(row) for row in chosen]))
    found: dict[int, list[Exemplar]] = {unit: [] for unit in wanted}
    for row, crop in zip(chosen, crops, strict=True):
        if crop is not None:
            places = (row["y"] or 0, row["x"] or 0, row["left"], row["top"], *run.place_of(row["image_id"]).size)
            found[row["unit"]].append(Exemplar(row["rank"], crop, *places))
    return {unit: tuple(found[unit]) for unit in wanted}


def originals_gone(run: Run) -> bool:
    """Whether exemplars may come out of reduced pictures: the run's first image is neither held in full nor there."""
    return not run.pictures.whole(int(run.images["image_id"].iloc[0])).sharp()[1]


def _crop(pixels: Pixels) -> bytes | None:
    """A crop of original pixels, encoded."""
    if pixels.data is not None and not pixels.whole:
        return pixels.data
    image, _ = pixels.sharp()
    return encode(image) if image else None


def _holds(file: pa.parquet.ParquetFile, group: int, column: int, units: list[int]) -> bool:
    span = file.metadata.row_group(group).column(column).statistics
    return span is None or any(span.min <= unit <= span.max for unit in units)


def _firing(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted([row for row in rows if row["activation"] > 0] or rows, key=lambda row: row["rank"])


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
        mean = np.array(self.how.mean, np.float32)
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
        if pixels.dtype == np.uint8:
            return pixels.astype(np.float32) / 255
        # by a transform, which normalizes too
        colours: np.ndarray = pixels * np.array(self.how.std) + np.array(self.how.mean)
        return colours.clip(0, 1).astype(np.float32)


def references_of(run: Run, layer: str, units: Iterable[int], count: int, placing: Placing) -> dict[int, Tensor]:
    """The best exemplars of each unit that make it fire, on the canvas: `[R, C, H, W]` in 0..1, R up to `count`.

    Raises `UserError` where the run has no exemplars of the layer.
    """
    return {unit: placing(found) for unit, found in read_exemplars(run, layer, units, count).items()}


def _overlap(begin: int, length: int, whole: int) -> slice:
    """The part of `whole` pixels that `length` ones from `begin` cover; empty if none."""
    low = min(max(begin, 0), whole)
    return slice(low, min(max(begin + length, low), whole))


def _mirror(covered: slice, length: int, whole: int) -> np.ndarray:
    """For each of `whole` pixels the one of `length` that is seen there, if mirrors stand at both ends of `covered`."""
    place = (np.arange(whole) - covered.start) % (2 * length)
    return np.minimum(place, 2 * length - 1 - place)
