"""The first exemplars of a layer in parts, with their images as the network sees them: what gradients are taken of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actmine.pipeline.datasets.shards import Place, Replaced, Shard, ShardError, read_bytes
from actmine.pipeline.preprocessing.geometry import Box
from actmine.pipeline.preprocessing.images import ImageError, Preprocessing, decode, network_pixels
from actmine.pipeline.receptive_fields.receptive_field import Field
from actmine.pipeline.storage.parquet import parquet_file

_EXEMPLARS_A_PART = 256


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
    """One image and exemplars in it: arrays `[rows]`; `fields` `[rows, 4]` are exact (input pixels).

    `layers` are the numbers of their layers, `rows` count the exemplars of each. `width` and `height` are what the
    image had when it was scanned (pixels).
    """

    shard: Shard
    place: Place
    width: int
    height: int
    layers: np.ndarray
    rows: np.ndarray
    units: np.ndarray
    y: np.ndarray
    x: np.ndarray
    fields: np.ndarray

    @property
    def spots(self) -> list[tuple[int, int, int, int]]:
        """Layer, unit, row and column of each exemplar."""
        return list(zip(*(column.tolist() for column in (self.layers, self.units, self.y, self.x)), strict=True))

    def field(self, place: int) -> Box:
        """The exact field of one of its exemplars (input pixels)."""
        return Box(*self.fields[place].tolist())


@dataclass(frozen=True, slots=True)
class ExemplarPart:
    """Part `number` of what is to measure in some `layers`, by their numbers."""

    layers: tuple[int, ...]
    number: int
    tasks: tuple[ExemplarTask, ...]

    @property
    def layer(self) -> int | None:
        """The only one of its layers; None: there are several."""
        return self.layers[0] if len(self.layers) == 1 else None

    @property
    def exemplars(self) -> int:
        """How many it comes to."""
        return sum(len(task.rows) for task in self.tasks)

    @property
    def far(self) -> bool:
        """Whether any of the images lies elsewhere, so that reading it is mostly waiting."""
        return any(task.shard.is_far for task in self.tasks)


def exemplar_parts(
    wanted: Mapping[int, pa.Table], fields: Mapping[int, Field], images: pa.Table, shards: Mapping[int, Shard]
) -> Iterator[ExemplarPart]:
    """What is to measure: exemplars (row, unit, image_id, y, x) of layers by number, grouped by image.

    Parts hold about 256 exemplars and whole images, each in one part. They depend on the exemplars alone.
    """
    rows = layered(wanted)
    known = images["image_id"].to_numpy()
    waiting: list[ExemplarTask] = []
    count = parts = 0
    for some in by_image(rows):
        image = images.slice(int(np.searchsorted(known, rows["image_id"][some[0]])), 1).to_pylist()[0]
        layer, row, unit, y, x = (rows[name][some] for name in ("layer", "row", "unit", "y", "x"))
        boxes = [fields[its[0]].box(*its[1:]) for its in zip(layer.tolist(), y.tolist(), x.tolist(), strict=True)]
        waiting.append(
            ExemplarTask(
                shards[image["shard"]], Place.of(image), image["width"], image["height"], layer, row, unit, y, x,
                np.array([(box.left, box.top, box.right, box.bottom) for box in boxes], np.int64),
            )
        )  # fmt: skip
        count += len(some)
        if count >= _EXEMPLARS_A_PART:
            yield ExemplarPart(tuple(wanted), parts, _longest_first(waiting))
            waiting, count, parts = [], 0, parts + 1
    if waiting:
        yield ExemplarPart(tuple(wanted), parts, _longest_first(waiting))


def layered(wanted: Mapping[int, pa.Table]) -> dict[str, np.ndarray]:
    """The columns of exemplars of all layers, one after the other, with `layer`, its number; a null counts as 0."""
    names = next(iter(wanted.values())).column_names if wanted else ["image_id"]
    found = {
        name: np.concatenate([pc.fill_null(rows[name], 0).to_numpy() for rows in wanted.values()] or [np.empty(0)])
        for name in names
    }  # fmt: skip
    return found | {"layer": np.repeat(list(wanted), [len(rows) for rows in wanted.values()]).astype(np.int64)}


def by_image(rows: Mapping[str, np.ndarray]) -> Iterator[np.ndarray]:
    """Which rows belong to each image, in the order of images and rows."""
    image_id = rows["image_id"]
    order = np.argsort(image_id, kind="stable")
    if len(order):
        yield from np.split(order, np.flatnonzero(np.diff(image_id[order])) + 1)


def _longest_first(tasks: Sequence[ExemplarTask]) -> tuple[ExemplarTask, ...]:
    """So that whoever shares a part ends at about the same time."""
    return tuple(sorted(tasks, key=lambda task: -len(task.rows)))


def input_pixels(task: ExemplarTask, how: Preprocessing, otherwise: str) -> np.ndarray:
    """The network's input of a task's image, `[H, W, C]`.

    Raises `ShardError` if it is not the one that was scanned; `otherwise` says what else the user can do.
    """
    try:
        image = decode(read_bytes(task.shard, task.place), how.upright)
        if image.size != (task.width, task.height):
            raise ImageError(f"it has {image.width} x {image.height} pixels, not {task.width} x {task.height}")
        return network_pixels(image, how)
    except (ImageError, Replaced) as error:
        what = f"it {error.how}" if isinstance(error, Replaced) else error
        raise ShardError(
            f"{task.place.path} of {task.shard.url} is not the image that was scanned ({what}): "
            f"its dataset changed. Restore it, start a new RUN, or {otherwise}."
        ) from error
