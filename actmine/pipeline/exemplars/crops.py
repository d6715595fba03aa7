"""What a run keeps of winning images: a picture of each, and crops of what that does not show sharply."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pyarrow as pa

from actmine.pipeline.datasets.shards import Place, Shard
from actmine.pipeline.datasets.sources import Block
from actmine.pipeline.errors import UserError
from actmine.pipeline.exemplars.exemplars import Rows
from actmine.pipeline.exemplars.maps import Asked
from actmine.pipeline.exemplars.pictures import SMALL_SIDE
from actmine.pipeline.scanning.merge import Merged
from actmine.pipeline.words import NONE, ORIGINAL, SIDE
from actmine.schemas.crops import BOX

KEPT = pa.schema(
    [("image_id", pa.int64()), *((side, pa.int32()) for side in BOX), ("width", pa.int32()), ("height", pa.int32()),
     ("picture", pa.binary())]
)  # fmt: skip
"""Pictures, of which the box is null, and crops."""

_HALF = 0.55  # of an image's side: half of it, and what a resize filter sees beyond
_BYTES_A_PART = 64 << 20
_IMAGES_A_PART = 1024
Kept = tuple[int, tuple[int, ...] | None, tuple[int, int], bytes]
"""A picture or crop: image_id, box (pixels; None: all of the image), its width and height, encoded."""


def parse_pictures(word: str) -> str:
    """What `--pictures` says, in one way each: original, none, or a number of pixels. Raises `UserError`."""
    if word in (ORIGINAL, NONE):
        return word
    if not word.isascii() or not word.isdigit() or not 1 <= int(word) < 1 << 16:
        raise UserError(f"--pictures {word} is none of original, none, and a number of pixels such as {SIDE}.")
    return str(int(word))


@dataclass(frozen=True, slots=True)
class CutTask:
    """One winning image of `size` (width, height) and the distinct `boxes` `[n, 4]` that may become crops (pixels).

    `side` is how long the shorter side of its picture may be, 0 for the file's own bytes in any case; None: nothing is
    kept of its pixels. `maps` are those of it that are kept. `upright`: it is turned by its EXIF orientation.
    """

    image_id: int
    shard: Shard
    place: Place
    size: tuple[int, int]
    boxes: np.ndarray
    side: int | None
    maps: Asked | None = None
    upright: bool = False

    @property
    def guessed_bytes(self) -> int:
        """About what is kept of its pixels (bytes): no more than the file has."""
        if self.side is None:
            return 0
        return min(self.place.nbytes, self.guessed_cuts) if self.reduced else self.place.nbytes

    @property
    def guessed_cuts(self) -> int:
        """About what the reduced picture and the crops come to (bytes)."""
        picture = np.array([[0, 0, *reduced_size(self.size, self.side or 0)]])
        return int(_guessed_bytes(np.concatenate([self.boxes, picture])).sum())

    @property
    def reduced(self) -> bool:
        """Whether its picture may have fewer pixels than it has itself."""
        return 0 < (self.side or 0) < min(self.size)


def reduced_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Width and height (pixels) with the shorter one `side` long."""
    shorter = min(size)
    return round(size[0] * side / shorter), round(size[1] * side / shorter)


def _guessed_bytes(boxes: np.ndarray) -> np.ndarray:
    """About how long crops get once encoded, `[rows]` (bytes): a PNG hardly shrinks, a JPEG to half a byte a pixel."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    pixels = width.astype(np.int64) * height
    return np.where(np.maximum(width, height) <= SMALL_SIDE, 3 * pixels, pixels // 2) + 100


@dataclass(frozen=True, slots=True)
class CropPart:
    """Some winning images of a block: few enough that what is kept of them fits in memory together."""

    block: int
    part: int
    tasks: tuple[CutTask, ...]

    @property
    def name(self) -> str:
        """What tells its files from those of other parts."""
        return f"{self.block:06d}-{self.part:04d}"


def crop_parts(
    blocks: Iterable[Block],
    merged: Merged,
    rows: Rows,
    pictures: str = SIDE,
    whole: bool = False,
    maps: Mapping[int, Asked] = MappingProxyType({}),
    upright: bool = False,
) -> Iterator[CropPart]:
    """Everything there is to keep, block by block in the order of the images' bytes; `pictures` as in `parse_pictures`.

    A block comes in parts of about 64 MiB, as far as can be told from the boxes, and of up to 1,024 images. The parts
    depend on the exemplars alone. `whole`: there is nothing to cut out, for boxes that are not in pixels of the images.
    `maps` are those wanted of each image, a row of `merged.images`. `upright`: images are turned by their EXIF
    orientation.
    """
    images = merged.images
    shard_of, ids = images["shard"].to_numpy(), images["image"].to_numpy()
    columns = [images[name] for name in ("path", "offset", "nbytes", "crc32")]
    sizes = np.stack([images[name].to_numpy() for name in ("width", "height")], 1)
    side = {ORIGINAL: 0, NONE: None}.get(pictures) if pictures in (ORIGINAL, NONE) else int(pictures)
    shown = np.flatnonzero(~_more_than_half(rows.box, sizes[rows.image]) & (not whole) & bool(side))
    by_image = shown[np.argsort(rows.image[shown], kind="stable")]
    begins = np.searchsorted(rows.image[by_image], np.arange(len(ids) + 1))
    for block in blocks:
        shards = {shard.number: shard for shard in block.shards}
        tasks = []
        for image in np.flatnonzero(np.isin(shard_of, list(shards))).tolist():
            boxes = np.unique(rows.box[by_image[begins[image] : begins[image + 1]]], axis=0)
            boxes = boxes[(boxes[:, :2] < boxes[:, 2:]).all(1)]  # a field that sees padding only has no pixels
            place = Place(*(column[image].as_py() for column in columns))
            size = int(sizes[image, 0]), int(sizes[image, 1])
            asked, shard = maps.get(image), shards[int(shard_of[image])]
            if side is not None or asked is not None:
                tasks.append(CutTask(int(ids[image]), shard, place, size, boxes, side, asked, upright))
        for part, some in enumerate(_in_parts(tasks)):
            yield CropPart(block.number, part, some)


def _more_than_half(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Whether boxes `[n, 4]` are wider or higher than about half of images of `sizes` `[n, 2]`, `[n]`."""
    found: np.ndarray = (boxes[:, 2:] - boxes[:, :2] > _HALF * sizes).any(1)
    return found


def _in_parts(tasks: Iterable[CutTask]) -> Iterator[tuple[CutTask, ...]]:
    """Runs of up to `_IMAGES_A_PART` tasks of which about `_BYTES_A_PART` are kept, or a single one of more."""
    waiting: list[CutTask] = []
    size = 0
    for task in tasks:
        more = task.guessed_bytes
        if waiting and (size + more > _BYTES_A_PART or len(waiting) == _IMAGES_A_PART):
            yield tuple(waiting)
            waiting, size = [], 0
        waiting.append(task)
        size += more
    if waiting:
        yield tuple(waiting)
