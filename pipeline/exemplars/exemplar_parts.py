"""The first exemplars of a layer in parts, with their images as the network sees them: what gradients are taken of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.datasets.shards import Place, Shard, ShardError, read_bytes
from pipeline.preprocessing.images import ImageError, Preprocessing, decode, network_pixels
from pipeline.receptive_fields.receptive_field import Field
from pipeline.storage.parquet import parquet_file

_EXEMPLARS_A_PART = 128


def first_exemplars(path: Path, most: int, columns: Sequence[str]) -> pa.Table:
    """The first `most` exemplars of each unit in a layer's table: some `columns`, and `row`, their number in it.

    Row groups are read one by one, so that columns of pictures never are in memory together with those left out.
    """
    chosen, begin = [], 0
    with parquet_file(path) as file:
        wanted = list(dict.fromkeys([*columns, "rank"]))
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, wanted)
            rows = rows.append_column("row", pa.array(np.arange(begin, begin + len(rows))))
            begin += len(rows)
            chosen.append(rows.filter(pc.less(rows["rank"], most)))
        if not chosen:
            empty = file.schema_arrow.empty_table().select(wanted)
            return empty.append_column("row", pa.array([], pa.int64()))
    return pa.concat_tables(chosen)


@dataclass(frozen=True, slots=True)
class ExemplarTask:
    """One image and exemplars of one layer in it: arrays `[rows]`; `fields` `[rows, 4]` are exact (input pixels).

    `width` and `height` are what the image had when it was scanned (pixels).
    """

    shard: Shard
    place: Place
    width: int
    height: int
    rows: np.ndarray
    units: np.ndarray
    y: np.ndarray
    x: np.ndarray
    fields: np.ndarray


@dataclass(frozen=True, slots=True)
class ExemplarPart:
    """Part `number` of what is to measure in layer `layer`, in kernels of up to `size` images."""

    layer: int
    number: int
    size: int
    tasks: tuple[ExemplarTask, ...]

    @property
    def exemplars(self) -> int:
        """How many it comes to."""
        return sum(len(task.rows) for task in self.tasks)

    @property
    def far(self) -> bool:
        """Whether any of the images lies elsewhere, so that reading it is mostly waiting."""
        return any(task.shard.remote for task in self.tasks)


def exemplar_parts(
    number: int, field: Field, size: int, rows: pa.Table, images: pa.Table, shards: Mapping[int, Shard]
) -> Iterator[ExemplarPart]:
    """What is to measure in layer `number`: `rows` of its exemplars (row, unit, image_id, y, x), grouped by image.

    Parts hold about 128 exemplars and whole images, each in one part. They depend on the exemplars alone.
    """
    unit, image_id = (rows[name].to_numpy() for name in ("unit", "image_id"))
    row, known = rows["row"].to_numpy(), images["image_id"].to_numpy()
    y, x = (rows[name].fill_null(0).to_numpy() for name in ("y", "x"))
    order = np.lexsort((row, image_id))
    waiting: list[ExemplarTask] = []
    count = parts = 0
    for some in np.split(order, np.flatnonzero(np.diff(image_id[order])) + 1):
        if not len(some):
            continue
        image = images.slice(int(np.searchsorted(known, image_id[some[0]])), 1).to_pylist()[0]
        fields = [field.box(int(y[i]), int(x[i])) for i in some]
        waiting.append(
            ExemplarTask(
                shards[image["shard"]], Place(image["path"], image["offset"], image["nbytes"]), image["width"],
                image["height"], row[some], unit[some], y[some], x[some],
                np.array([(box.left, box.top, box.right, box.bottom) for box in fields], np.int64),
            )
        )  # fmt: skip
        count += len(some)
        if count >= _EXEMPLARS_A_PART:
            yield ExemplarPart(number, parts, size, tuple(waiting))
            waiting, count, parts = [], 0, parts + 1
    if waiting:
        yield ExemplarPart(number, parts, size, tuple(waiting))


def input_pixels(task: ExemplarTask, how: Preprocessing, otherwise: str) -> np.ndarray:
    """The network's input of a task's image, `[H, W, C]`.

    Raises `ShardError` if it is not the one that was scanned; `otherwise` says what else the user can do.
    """
    try:
        image = decode(read_bytes(task.shard, task.place), how.upright)
        if image.size != (task.width, task.height):
            raise ImageError(f"it has {image.width} x {image.height} pixels, not {task.width} x {task.height}")
        return network_pixels(image, how)
    except ImageError as error:
        raise ShardError(
            f"{task.place.path} of {task.shard.url} is not the image that was scanned ({error}): "
            f"its dataset changed. Restore it, start a new RUN, or {otherwise}."
        ) from error


@dataclass(frozen=True, slots=True)
class Kernel:
    """What goes through the network together: `pixels` of B images, and of each the task and the place in it."""

    pixels: np.ndarray
    of: tuple[tuple[ExemplarTask, int], ...]


def kernels(part: ExemplarPart, pixels: Sequence[np.ndarray]) -> Iterator[Kernel]:
    """A part in batches of `part.size`; `pixels` are those of its tasks. An image with n exemplars comes n times."""
    each = [(task, its, place) for task, its in zip(part.tasks, pixels, strict=True) for place in range(len(task.rows))]
    for begin in range(0, len(each), part.size):
        some = each[begin : begin + part.size]
        yield Kernel(np.stack([its for _, its, _ in some]), tuple((task, place) for task, _, place in some))
