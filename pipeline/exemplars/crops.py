"""Winners to crops: reads only winning images, by their place, decodes each once and cuts every box."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline.datasets.batches import map_in_order
from pipeline.datasets.shards import Place, Shard, ShardError, read_bytes
from pipeline.datasets.sources import Block
from pipeline.exemplars.exemplars import Rows
from pipeline.preprocessing.images import ImageError, decode
from pipeline.scanning.merge import Merged
from pipeline.storage.parquet import read_arrow

CROPS = pa.schema([("row", pa.int64()), ("crop", pa.binary())])
SMALL_SIDE = 64
_BYTES_A_BATCH = 32 << 20
_BYTES_A_PART = 64 << 20
Crops = list[tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class CutTask:
    """One winning image and the boxes to cut from it: `rows` of the exemplars, `boxes` `[rows, 4]` (pixels)."""

    shard: Shard
    place: Place
    rows: np.ndarray
    boxes: np.ndarray


def cut(task: CutTask) -> Crops:
    """Every crop of one image by exemplar row; equal boxes are encoded once.

    Raises `ShardError` if the image is not the one that was scanned.
    """
    try:
        image = decode(read_bytes(task.shard, task.place))
    except ImageError as error:
        raise ShardError(
            f"{task.place.path} of {task.shard.url} could be read when it was scanned, and now cannot ({error}): "
            "its dataset changed during the run. Restore it, or start a new RUN."
        ) from error
    encoded: dict[tuple[int, ...], bytes] = {}
    crops: Crops = []
    for row, box in zip(task.rows.tolist(), map(tuple, task.boxes.tolist()), strict=True):
        if box not in encoded:
            encoded[box] = encode(image.crop(box))
        crops.append((row, encoded[box]))
    return crops


def encode(crop: Image.Image) -> bytes:
    """PNG, which is exact, up to 64 x 64 pixels; JPEG of quality 90 without chroma subsampling above."""
    data = io.BytesIO()
    if max(crop.size) <= SMALL_SIDE:
        crop.save(data, "PNG", compress_level=1)
    else:
        crop.save(data, "JPEG", quality=90, subsampling=0)
    return data.getvalue()


@dataclass(frozen=True, slots=True)
class CropPart:
    """Some of what there is to cut from a block: few enough that their crops fit in memory together."""

    block: int
    part: int
    tasks: tuple[CutTask, ...]

    @property
    def crops(self) -> int:
        """How many crops it comes to."""
        return sum(len(task.rows) for task in self.tasks)


def crop_parts(blocks: Iterable[Block], merged: Merged, rows: Rows, whole: bool = False) -> Iterator[CropPart]:
    """Everything there is to cut, block by block in the order of the images' bytes.

    A block comes in parts of about 64 MiB of crops, as far as can be told from the boxes. The parts depend on the
    exemplars alone. `whole` cuts out nothing: each crop is the whole image, for boxes that are not in its pixels.
    """
    images = merged.images
    shard_of = images["shard"].to_numpy()
    columns = [images[name] for name in ("path", "offset", "nbytes")]
    sizes = np.stack([images[name].to_numpy() for name in ("width", "height")], 1)
    by_image = np.argsort(rows.image, kind="stable")
    begins = np.searchsorted(rows.image, np.arange(len(shard_of)), side="left", sorter=by_image)
    ends = np.append(begins[1:], len(by_image))
    for block in blocks:
        shards = {shard.number: shard for shard in block.shards}
        tasks = []
        for image in np.flatnonzero(np.isin(shard_of, list(shards))).tolist():
            chosen = by_image[begins[image] : ends[image]]
            place = Place(*(column[image].as_py() for column in columns))
            boxes = np.tile([0, 0, *sizes[image]], (len(chosen), 1)) if whole else rows.box[chosen]
            tasks.append(CutTask(shards[int(shard_of[image])], place, chosen, boxes))
        for part, some in enumerate(_in_parts(tasks)):
            yield CropPart(block.number, part, some)


def _in_parts(tasks: Iterable[CutTask]) -> Iterator[tuple[CutTask, ...]]:
    """Runs of tasks below `_BYTES_A_PART`; an image with more than that is cut in several tasks."""
    waiting: list[CutTask] = []
    size = 0
    for task in tasks:
        sizes = _guessed_bytes(task.boxes)
        cuts = np.flatnonzero(np.diff(np.cumsum(sizes) // _BYTES_A_PART)) + 1
        for rows, boxes, nbytes in zip(*(np.split(of, cuts) for of in (task.rows, task.boxes, sizes)), strict=True):
            piece, more = CutTask(task.shard, task.place, rows, boxes), int(nbytes.sum())
            if waiting and size + more > _BYTES_A_PART:
                yield tuple(waiting)
                waiting, size = [], 0
            waiting.append(piece)
            size += more
    if waiting:
        yield tuple(waiting)


def _guessed_bytes(boxes: np.ndarray) -> np.ndarray:
    """About how long crops get once encoded, `[rows]` (bytes): a PNG hardly shrinks, a JPEG to half a byte a pixel."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    pixels = width.astype(np.int64) * height
    return np.where(np.maximum(width, height) <= SMALL_SIDE, 3 * pixels, pixels // 2) + 100


def cut_all(
    tasks: Sequence[CutTask], pool: ThreadPoolExecutor, threads: int, on_crops: Callable[[int], None]
) -> pa.Buffer:
    """Cuts all `tasks` in `pool`; an Arrow file of `CROPS` in memory, its crops in the order of the tasks."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, CROPS) as writer:
        for crops in _gathered(_counted(map_in_order(cut, tasks, pool, 2 * threads), on_crops)):
            numbers, data = zip(*crops, strict=True)
            writer.write_batch(pa.record_batch([pa.array(numbers, pa.int64()), pa.array(data, pa.binary())], CROPS))
    return sink.getvalue()


def _counted(results: Iterator[Crops], on_crops: Callable[[int], None]) -> Iterator[Crops]:
    for crops in results:
        on_crops(len(crops))
        yield crops


def _gathered(results: Iterator[Crops]) -> Iterator[Crops]:
    """Joins results until they are worth a record batch."""
    waiting: Crops = []
    size = 0
    for crops in results:
        waiting += crops
        size += sum(len(data) for _, data in crops)
        if size >= _BYTES_A_BATCH:
            yield waiting
            waiting, size = [], 0
    if waiting:
        yield waiting


class CropStore:
    """Crops of any exemplar row from the files of all blocks, memory-mapped.

    Raises `UserError` if one of the files is damaged.
    """

    def __init__(self, paths: Sequence[Path], rows: int) -> None:
        tables = [read_arrow(path, CROPS) for path in paths]
        self._chunks = [chunk for table in tables for chunk in table["crop"].chunks]
        self._chunk = np.full(rows, -1, np.int32)
        self._index = np.zeros(rows, np.int64)
        numbered = (chunk for table in tables for chunk in table["row"].chunks)
        for chunk, numbers in enumerate(numbered):
            self._chunk[numbers.to_numpy()] = chunk
            self._index[numbers.to_numpy()] = np.arange(len(numbers))

    def take(self, rows: slice) -> pa.Array:
        """The encoded crops of consecutive exemplar rows. Raises KeyError for one that was never cut."""
        chunks = self._chunk[rows].tolist()
        if -1 in chunks:
            raise KeyError(f"exemplar row {rows.start + chunks.index(-1)} has no crop")
        # pyarrow's take on a chunked array joins all chunks first: gigabytes for a few hundred crops
        places = zip(chunks, self._index[rows].tolist(), strict=True)
        return pa.array([self._chunks[chunk][index].as_py() for chunk, index in places], pa.binary())
