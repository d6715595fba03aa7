"""Folds the states of all blocks, in block order, into what the whole dataset came to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from actmine.pipeline.readings.accumulators import Accumulator, held_images
from actmine.pipeline.readings.batch_index import halves, identity
from actmine.pipeline.readings.maxima import Stored
from actmine.pipeline.scanning.scan import BlockState

_MANY_IMAGES = 1 << 20


@dataclass(frozen=True, slots=True)
class Merged:
    """The whole dataset: accumulators whose image numbers count its samples from 0, and its tables.

    `images` has the columns of `scan.MEMBERS` with `image` now the image_id, sorted by it: what accumulators hold; all
    images where `maxima`, the parts of the matrix of all image activations, are kept. `names` has labels in words.
    """

    accumulators: dict[str, Accumulator]
    images: pa.Table
    shards: pa.Table
    skipped: pa.Table
    maxima: tuple[Stored, ...] = ()
    names: Mapping[int, str] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """Samples of the dataset, seen or skipped."""
        return int(pc.sum(self.shards["members"]).as_py() or 0)

    @property
    def turned(self) -> int:
        """Images whose EXIF orientation says that they are not stored upright."""
        return int(pc.sum(self.shards["turned"]).as_py() or 0)

    @property
    def seen(self) -> int:
        """Images that went through the network."""
        return int(pc.sum(self.shards["seen"]).as_py() or 0)

    def halves(self, image_ids: np.ndarray) -> np.ndarray:
        """Which half of the dataset images are in, see `batch_index.halves`, int64 `[N]`."""
        members = self.shards["members"].to_numpy()
        first = np.cumsum(members) - members
        row = np.searchsorted(first, image_ids, "right") - 1
        known = identity(
            torch.from_numpy(self.shards["shard"].to_numpy().astype(np.int64)[row]),
            torch.from_numpy(image_ids.astype(np.int64) - first[row]),
        )
        found: np.ndarray = halves(known).numpy()
        return found

    def keeping(self, image_ids: np.ndarray) -> Merged:
        """The same with no other images than those."""
        return replace(self, images=_only(self.images, np.unique(image_ids)))


def merge(states: Iterable[BlockState], whole: bool = False) -> Merged:
    """Merges states that come in block order, holding two at a time and the images that may still win, or `whole`."""
    merged: dict[str, Accumulator] = {}
    images, shards, skipped, maxima = [], [], [], []
    names: dict[int, str] = {}
    first, prune_at = 0, _MANY_IMAGES
    for state in states:
        for name, accumulator in state.accumulators.items():
            accumulator.shift(first)
            if name in merged:
                merged[name].merge(accumulator)
            else:
                merged[name] = accumulator
        numbers = pc.add(state.members["image"], first)
        images.append(state.members.set_column(0, state.members.schema.field("image"), numbers))
        shards.append(state.shards)
        skipped.append(state.skipped)
        for label, name in zip(*(column.to_pylist() for column in state.names.columns), strict=True):
            names.setdefault(label, name)
        if isinstance(state.maxima, Stored):
            maxima.append(replace(state.maxima, numbers=state.maxima.numbers + first))
        first += int(pc.sum(state.shards["members"]).as_py() or 0)
        if sum(map(len, images)) > prune_at and not whole:
            images = [_winning(images, merged)]
            prune_at = max(_MANY_IMAGES, 2 * len(images[0]))
    left = pa.concat_tables(images) if whole else _winning(images, merged)
    return Merged(merged, left, pa.concat_tables(shards), pa.concat_tables(skipped), tuple(maxima), names)


def _winning(images: Sequence[pa.Table], merged: dict[str, Accumulator]) -> pa.Table:
    """Those of the images that are among the exemplars of any unit so far."""
    return _only(pa.concat_tables(images), held_images(merged).numpy())


def _only(images: pa.Table, kept: np.ndarray) -> pa.Table:
    return images.filter(pa.array(np.isin(images["image"].to_numpy(), kept)))
