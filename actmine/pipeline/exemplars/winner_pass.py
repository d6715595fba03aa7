"""One look at each winning image: read and decoded once, cut, and shown to the network once for its maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import pyarrow as pa
from PIL import Image

from actmine.pipeline.datasets.batches import map_in_order
from actmine.pipeline.datasets.shards import ShardError, read_bytes
from actmine.pipeline.exemplars.crops import KEPT, CutTask, Kept, reduced_size
from actmine.pipeline.exemplars.maps import KEPT as KEPT_MAPS
from actmine.pipeline.exemplars.maps import Asked, MapReader
from actmine.pipeline.exemplars.pictures import encode, exact
from actmine.pipeline.preprocessing.images import ImageError, Preprocessing, decode, network_pixels, orientation

_BYTES_A_BATCH = 32 << 20
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cut:
    """What is `kept` of an image's pixels; and if maps are asked of it, which, and what the network gets of it."""

    kept: list[Kept]
    shown: tuple[Asked, np.ndarray] | None = None


def cut(task: CutTask, how: Preprocessing) -> Cut:
    """Reads and decodes an image for all that is kept of it.

    Raises `ShardError` if it is not the one that was scanned.
    """
    data = read_bytes(task.shard, task.place)
    try:
        image = decode(data, task.upright)
        if image.size != task.size:
            raise ImageError(f"it has {image.width} x {image.height} pixels")
        shown = None if task.maps is None else (task.maps, network_pixels(image, how))
    except ImageError as error:
        raise ShardError(
            f"{task.place.path} of {task.shard.url} could be read when it was scanned, and now cannot ({error}): "
            "its dataset changed during the run. Restore it, or start a new RUN."
        ) from error
    return Cut([] if task.side is None else _kept(task, image, data), shown)


def _kept(task: CutTask, image: Image.Image, data: bytes) -> list[Kept]:
    """The picture of an image, and its crops where the picture is reduced.

    It is the file itself where that is no larger than the reduced picture and its crops together: exact, and shorter;
    as PNG if it has an EXIF orientation, so that all see it as it was mined.
    """
    if orientation(data) != 1:  # which readers would follow, or not, each in its own way
        data = exact(image)
    if task.side and task.reduced and task.guessed_cuts < len(data):
        size = reduced_size(task.size, task.side)
        small = encode(image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))
        found: list[Kept] = [(task.image_id, None, size, small)]
        for box in map(tuple, task.boxes.tolist()):
            found.append((task.image_id, box, (box[2] - box[0], box[3] - box[1]), encode(image.crop(box))))
        if sum(len(picture) for *_, picture in found) < len(data):
            return found
    return [(task.image_id, None, task.size, data)]


class WinnerPass:
    """Cuts images in threads of the pool `reading`, and shows them in those of `computing` to the `reader`, if any.

    Images are preprocessed by `how` and shown `together` many at a time; `lanes` is how many threads compute.
    """

    def __init__(
        self,
        how: Preprocessing,
        reader: MapReader | None,
        together: int,
        reading: ThreadPoolExecutor,
        computing: ThreadPoolExecutor,
        lanes: int,
    ) -> None:
        self.how, self.reader, self.together = how, reader, together
        self.reading, self.computing, self.lanes = reading, computing, lanes

    def __call__(
        self, tasks: Sequence[CutTask], most: int, on_images: Callable[[int], None]
    ) -> tuple[pa.Buffer, pa.Buffer]:
        """What is kept of all `tasks`: Arrow files of pictures and of maps, in memory, in the order of the tasks.

        Up to `most` images are read at once.
        """
        pictures, maps = pa.BufferOutputStream(), pa.BufferOutputStream()
        with pa.ipc.new_file(pictures, KEPT) as writer, pa.ipc.new_file(maps, KEPT_MAPS) as map_writer:

            def kept() -> Iterator[list[Kept]]:
                cuts = map_in_order(lambda task: cut(task, self.how), tasks, self.reading, most)
                batches = _batched(cuts, self.together)
                for some, found in map_in_order(self._shown, batches, self.computing, self.lanes + 1):
                    on_images(len(some))
                    if found is not None:
                        map_writer.write_batch(found)
                    yield [kept for cut in some for kept in cut.kept]

            for some in _gathered(kept()):
                writer.write_batch(_batch(some))
        return pictures.getvalue(), maps.getvalue()

    def _shown(self, some: Sequence[Cut]) -> tuple[Sequence[Cut], pa.RecordBatch | None]:
        shown = [cut.shown for cut in some if cut.shown is not None]
        if self.reader is None or not shown:
            return some, None
        return some, self.reader(np.stack([pixels for _, pixels in shown]), [asked for asked, _ in shown])


def _batch(kept: Sequence[Kept]) -> pa.RecordBatch:
    ids, boxes, sizes, data = zip(*kept, strict=True)
    columns = [
        pa.array(ids, pa.int64()),
        *(pa.array([box and box[side] for box in boxes], pa.int32()) for side in range(4)),
        *(pa.array([size[side] for size in sizes], pa.int32()) for side in range(2)),
        pa.array(data, pa.binary()),
    ]
    return pa.record_batch(columns, KEPT)


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Items in lists of `size`, and of the rest."""
    source = iter(items)
    while some := list(islice(source, size)):
        yield some


def _gathered(results: Iterator[list[Kept]]) -> Iterator[list[Kept]]:
    """Joins what is kept of images until it is worth a record batch."""
    waiting: list[Kept] = []
    size = 0
    for kept in results:
        waiting += kept
        size += sum(len(picture) for *_, picture in kept)
        if size >= _BYTES_A_BATCH:
            yield waiting
            waiting, size = [], 0
    if waiting:
        yield waiting
