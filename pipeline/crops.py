"""Winners to crops: reads only winning images, by their place, decodes each once and cuts every box."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline.batches import map_in_order
from pipeline.exemplars import Rows
from pipeline.files import written_aside
from pipeline.images import ImageError, decode
from pipeline.merge import Merged
from pipeline.shards import Place, Shard, ShardError, read_bytes
from pipeline.sources import Block

CROPS = pa.schema([("row", pa.int64()), ("crop", pa.binary())])
SMALL_SIDE = 64
_BYTES_A_BATCH = 32 << 20


@dataclass(frozen=True, slots=True)
class CutTask:
    """One winning image and the boxes to cut from it: `rows` of the exemplars, `boxes` `[rows, 4]` (pixels)."""

    shard: Shard
    place: Place
    rows: np.ndarray
    boxes: np.ndarray


def cut(task: CutTask) -> list[tuple[int, bytes]]:
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
    crops = []
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


def cut_tasks(block: Block, merged: Merged, rows: Rows) -> list[CutTask]:
    """What there is to cut from the images of one block, in the order of their bytes."""
    images = merged.images
    shards = {shard.number: shard for shard in block.shards}
    here = np.flatnonzero(np.isin(images["shard"].to_numpy(), list(shards)))
    by_image = np.argsort(rows.image, kind="stable")
    begins = np.searchsorted(rows.image, here, side="left", sorter=by_image)
    ends = np.searchsorted(rows.image, here, side="right", sorter=by_image)
    tasks = []
    for image, begin, end in zip(here.tolist(), begins, ends, strict=True):
        chosen = by_image[begin:end]
        place = Place(*(images[name][image].as_py() for name in ("path", "offset", "nbytes")))
        tasks.append(CutTask(shards[images["shard"][image].as_py()], place, chosen, rows.box[chosen]))
    return tasks


def write_crops(path: Path, tasks: Sequence[CutTask], workers: int, on_crops: Callable[[int], None]) -> None:
    """Cuts all `tasks` and writes them to `path` as one Arrow file; crops come in the order of the tasks."""
    with (
        written_aside(path) as aside,
        pa.OSFile(str(aside), "wb") as sink,
        pa.ipc.new_file(sink, CROPS) as writer,
        ThreadPoolExecutor(workers, thread_name_prefix="crop") as pool,
    ):
        for crops in _gathered(map_in_order(cut, tasks, pool, 2 * workers)):
            numbers, data = zip(*crops, strict=True)
            writer.write_batch(pa.record_batch([pa.array(numbers, pa.int64()), pa.array(data, pa.binary())], CROPS))
            on_crops(len(crops))


def _gathered(results: Iterator[list[tuple[int, bytes]]]) -> Iterator[list[tuple[int, bytes]]]:
    """Joins results until they are worth a record batch."""
    waiting: list[tuple[int, bytes]] = []
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
    """Crops of any exemplar row from the files of all blocks, memory-mapped."""

    def __init__(self, paths: Sequence[Path], rows: int) -> None:
        tables = [pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in paths]
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
