"""Winning images to what a run keeps of them: each is read and decoded once, for its picture and its crops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline.datasets.batches import map_in_order
from pipeline.datasets.shards import Place, Shard, ShardError, read_bytes
from pipeline.datasets.sources import Block
from pipeline.errors import UserError
from pipeline.exemplars.exemplars import Rows
from pipeline.exemplars.pictures import SMALL_SIDE, encode, exact
from pipeline.preprocessing.images import ImageError, decode, orientation
from pipeline.scanning.merge import Merged
from pipeline.words import NONE, ORIGINAL, SIDE
from schemas.crops import BOX

KEPT = pa.schema(
    [("image_id", pa.int64()), *((side, pa.int32()) for side in BOX), ("width", pa.int32()), ("height", pa.int32()),
     ("picture", pa.binary())]
)  # fmt: skip
"""Pictures, of which the box is null, and crops."""

_HALF = 0.55  # of an image's side: half of it, and what a resize filter sees beyond
_BYTES_A_BATCH = 32 << 20
_BYTES_A_PART = 64 << 20
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

    `side` is how long the shorter side of its picture may be, 0 for the file's own bytes in any case. `upright`: it is
    turned by its EXIF orientation.
    """

    image_id: int
    shard: Shard
    place: Place
    size: tuple[int, int]
    boxes: np.ndarray
    side: int
    upright: bool = False

    @property
    def guessed_bytes(self) -> int:
        """About what is kept of it (bytes): no more than the file has."""
        return min(self.place.nbytes, self.guessed_cuts) if self.reduced else self.place.nbytes

    @property
    def guessed_cuts(self) -> int:
        """About what the reduced picture and the crops come to (bytes)."""
        picture = np.array([[0, 0, *_reduced(self.size, self.side)]])
        return int(_guessed_bytes(np.concatenate([self.boxes, picture])).sum())

    @property
    def reduced(self) -> bool:
        """Whether its picture may have fewer pixels than it has itself."""
        return 0 < self.side < min(self.size)


def cut(task: CutTask) -> list[Kept]:
    """The picture of an image, and its crops where the picture is reduced.

    It is the file itself where that is no larger than the reduced picture and its crops together: exact, and shorter;
    as PNG if it has an EXIF orientation, so that all see it as it was mined.
    Raises `ShardError` if the image is not the one that was scanned.
    """
    data = read_bytes(task.shard, task.place)
    try:
        image = decode(data, task.upright)
        if image.size != task.size:
            raise ImageError(f"it has {image.width} x {image.height} pixels")
    except ImageError as error:
        raise ShardError(
            f"{task.place.path} of {task.shard.url} could be read when it was scanned, and now cannot ({error}): "
            "its dataset changed during the run. Restore it, or start a new RUN."
        ) from error
    if orientation(data) != 1:  # which readers would follow, or not, each in its own way
        data = exact(image)
    if task.reduced and task.guessed_cuts < len(data):
        size = _reduced(task.size, task.side)
        small = encode(image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))
        found: list[Kept] = [(task.image_id, None, size, small)]
        for box in map(tuple, task.boxes.tolist()):
            found.append((task.image_id, box, (box[2] - box[0], box[3] - box[1]), encode(image.crop(box))))
        if sum(len(picture) for *_, picture in found) < len(data):
            return found
    return [(task.image_id, None, task.size, data)]


def _reduced(size: tuple[int, int], side: int) -> tuple[int, int]:
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
        """What its file is called."""
        return f"pictures-{self.block:06d}-{self.part:04d}"


def crop_parts(
    blocks: Iterable[Block],
    merged: Merged,
    rows: Rows,
    pictures: str = SIDE,
    whole: bool = False,
    upright: bool = False,
) -> Iterator[CropPart]:  # fmt: skip
    """Everything there is to keep, block by block in the order of the images' bytes; `pictures` as in `parse_pictures`.

    A block comes in parts of about 64 MiB, as far as can be told from the boxes. The parts depend on the exemplars
    alone. `whole`: there is nothing to cut out, for boxes that are not in pixels of the images. `upright`: images are
    turned by their EXIF orientation.
    """
    images = merged.images
    shard_of, ids = images["shard"].to_numpy(), images["image"].to_numpy()
    columns = [images[name] for name in ("path", "offset", "nbytes")]
    sizes = np.stack([images[name].to_numpy() for name in ("width", "height")], 1)
    side = 0 if pictures == ORIGINAL else int(pictures)
    shown = np.flatnonzero(~_more_than_half(rows.box, sizes[rows.image]) & (not whole) & (side > 0))
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
            tasks.append(CutTask(int(ids[image]), shards[int(shard_of[image])], place, size, boxes, side, upright))
        for part, some in enumerate(_in_parts(tasks)):
            yield CropPart(block.number, part, some)


def _more_than_half(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Whether boxes `[n, 4]` are wider or higher than about half of images of `sizes` `[n, 2]`, `[n]`."""
    found: np.ndarray = (boxes[:, 2:] - boxes[:, :2] > _HALF * sizes).any(1)
    return found


def _in_parts(tasks: Iterable[CutTask]) -> Iterator[tuple[CutTask, ...]]:
    """Runs of tasks of which about `_BYTES_A_PART` are kept, or a single one of more."""
    waiting: list[CutTask] = []
    size = 0
    for task in tasks:
        more = task.guessed_bytes
        if waiting and size + more > _BYTES_A_PART:
            yield tuple(waiting)
            waiting, size = [], 0
        waiting.append(task)
        size += more
    if waiting:
        yield tuple(waiting)


def cut_all(
    tasks: Sequence[CutTask], pool: ThreadPoolExecutor, threads: int, on_images: Callable[[int], None]
) -> pa.Buffer:
    """Cuts all `tasks` in `pool`; an Arrow file of `KEPT` in memory, in the order of the tasks."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, KEPT) as writer:
        for some in _gathered(map_in_order(cut, tasks, pool, 2 * threads), on_images):
            ids, boxes, sizes, data = zip(*some, strict=True)
            columns = [
                pa.array(ids, pa.int64()),
                *(pa.array([box and box[side] for box in boxes], pa.int32()) for side in range(4)),
                *(pa.array([size[side] for size in sizes], pa.int32()) for side in range(2)),
                pa.array(data, pa.binary()),
            ]
            writer.write_batch(pa.record_batch(columns, KEPT))
    return sink.getvalue()


def _gathered(results: Iterator[list[Kept]], on_images: Callable[[int], None]) -> Iterator[list[Kept]]:
    """Joins what is kept of images until it is worth a record batch."""
    waiting: list[Kept] = []
    size = 0
    for kept in results:
        on_images(1)
        waiting += kept
        size += sum(len(picture) for *_, picture in kept)
        if size >= _BYTES_A_BATCH:
            yield waiting
            waiting, size = [], 0
    if waiting:
        yield waiting
