"""The images of a run: looked up by number, found by their keys, and the units that each of them tops."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actmine.pipeline.atlas.records import Image, Unkept
from actmine.pipeline.errors import UserError
from actmine.pipeline.naming import in_words
from actmine.pipeline.readings.statistics_options import TOP
from actmine.pipeline.run_tables import missing
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.reading import Reading


class Images:
    """`images.parquet` of the run in a folder; the columns stay in memory.

    Raises `UserError` where it, or `shards.parquet`, is missing or cannot be read.
    """

    def __init__(self, run: Path, reading: Reading) -> None:
        columns = ("image_id", "key", "shard", "path", "width", "height", "label", "label_name")
        rows, shards = (
            _whole(reading, run / f"{name}.parquet", wanted)
            for name, wanted in (("images", columns), ("shards", ("shard", "url", "members")))
        )
        self._rows = rows.combine_chunks()
        ids = self._rows["image_id"].to_numpy().astype(np.int64)
        self._order = np.argsort(ids, kind="stable")
        self._ids = ids[self._order]
        self._sizes = np.stack([self._rows[side].to_numpy() for side in ("width", "height")], 1)
        self._shards = {row["shard"]: row["url"] for row in shards.to_pylist()}
        self._members = dict(zip(shards["shard"].to_pylist(), shards["members"].to_pylist(), strict=True))
        self._skipped = run / "skipped.parquet"
        self._reading = reading

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def labelled(self) -> bool:
        """Whether any of them has a label."""
        return "label" in self._rows.column_names and self._rows["label"].null_count < len(self)

    def get(self, image_id: int) -> Image | None:
        """An image by its number; None where no exemplar names it."""
        place = self._place(image_id)
        return None if place is None else self._image(place)

    def unkept(self, image_id: int) -> Unkept | None:
        """What is known of an image that no exemplar names; None for one beyond the dataset, or that one names."""
        if self._place(image_id) is not None:
            return None
        first = 0
        for shard, members in self._members.items():
            if first <= image_id < first + members:
                found = Unkept(image_id, self._shards[shard], image_id - first, members)
                rows = self._reading.rows(self._skipped, ("shard", "position", "key", "error"))
                lost = [] if rows is None else rows.to_pylist()
                its = (row for row in lost if (row["shard"], row["position"]) == (shard, found.position))
                return next((replace(found, key=row["key"], error=row["error"]) for row in its), found)
            first += members
        return None

    def size(self, image_id: int) -> tuple[int, int] | None:
        """Width and height of the original (pixels)."""
        place = self._place(image_id)
        return None if place is None else (int(self._sizes[place, 0]), int(self._sizes[place, 1]))

    def named(self, text: str, most: int) -> list[Image]:
        """The first `most` images whose key or label holds `text`, case and underscores aside."""
        there = np.zeros(len(self), bool)
        for column in {"key", "label_name"} & set(self._rows.column_names) if len(self) else ():
            words = pc.replace_substring(self._rows[column].cast(pa.string()), "_", " ")
            found = pc.match_substring(words, in_words(text), ignore_case=True)
            there |= pc.fill_null(found, False).to_numpy(zero_copy_only=False)
        return [self._image(int(place)) for place in np.flatnonzero(there)[:most]]

    def labels(self) -> list[str]:
        """The labels of all of them in words, each once."""
        if "label_name" not in self._rows.column_names:
            return []
        names = self._rows["label_name"].cast(pa.string()).unique().to_pylist()
        return [name for name in dict.fromkeys(map(in_words, names)) if name]

    def numbers_and_keys(self) -> Iterable[tuple[int, str]]:
        """Number and key of every image."""
        return zip(self._rows["image_id"].to_pylist(), self._rows["key"].to_pylist(), strict=True)

    def _place(self, image_id: int) -> int | None:
        at = int(np.searchsorted(self._ids, image_id))
        return int(self._order[at]) if at < len(self._ids) and self._ids[at] == image_id else None

    def _image(self, place: int) -> Image:
        row = self._rows.slice(place, 1).to_pylist()[0]
        shard = self._shards.get(row["shard"], "")
        return Image(row["image_id"], row["key"], named(row), (row["width"], row["height"]), row["path"], shard)


@dataclass(frozen=True, slots=True)
class Topping:
    """Who tops what: a row per top exemplar that fires, sorted by image, rank, layer and unit; layers are counted.

    `images` are those that top any, and `first` says where the rows of each begin, with the end of all at last.
    """

    images: np.ndarray
    first: np.ndarray
    layer: np.ndarray
    unit: np.ndarray
    rank: np.ndarray

    def of(self, image_id: int) -> list[tuple[int, int, int]]:
        """Layer, unit and rank of every exemplar that is this image, the best ranks first."""
        at = int(np.searchsorted(self.images, image_id))
        if at == len(self.images) or self.images[at] != image_id:
            return []
        columns = (
            column[self.first[at] : self.first[at + 1]].tolist() for column in (self.layer, self.unit, self.rank)
        )
        return list(zip(*columns, strict=True))


_NONE = tuple(np.empty(0, kind) for kind in (np.int64, np.int16, np.int32, np.int16))


def topping(run: Path, reading: Reading, layers: Sequence[str], end: str = TOP) -> Topping:
    """The exemplars of every unit by image, of the band `end`; of the top those that fire. 8 bytes each, or 12.

    Raises `UserError` where a table cannot be read.
    """
    parts: list[tuple[np.ndarray, ...]] = [_NONE]
    columns = ["unit", "rank", "image_id", "activation", "band"]
    for number, layer in enumerate(layers):
        rows = reading.rows(table_file(run, "exemplars", layer), columns, keep=False)
        if rows is None:
            raise UserError(missing(table_file(run, "exemplars", layer)))
        if "band" in rows.column_names:
            rows = rows.filter(pc.equal(pc.fill_null(rows["band"], TOP), end))
        if end == TOP:
            rows = rows.filter(pc.greater(rows["activation"], 0))
        image, unit, rank = (rows[name].to_numpy() for name in ("image_id", "unit", "rank"))
        small = rank.astype(_least(int(rank.max(initial=0))))
        parts.append((image, np.full(len(rows), number, _least(len(layers))), unit, small))
    image, layer_number, unit, rank = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(image * (int(rank.max(initial=0)) + 1) + rank, kind="stable")  # layers and units ascend as it is
    images, first = np.unique(image[order], return_index=True)
    return Topping(images, np.append(first, len(image)), layer_number[order], unit[order], rank[order])


def _whole(reading: Reading, path: Path, columns: Sequence[str]) -> pa.Table:
    rows = reading.rows(path, columns)
    if rows is None:
        raise UserError(missing(path))
    return rows


def _least(most: int) -> type[np.signedinteger[Any]]:
    """The smaller of two types that holds numbers up to `most`."""
    return np.int16 if most <= np.iinfo(np.int16).max else np.int32


def named(row: Mapping[str, Any]) -> str | None:
    """A row's label in words, or its number, or None."""
    return in_words(row.get("label_name"), row.get("label")) or None
