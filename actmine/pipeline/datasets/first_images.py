"""The sizes of a dataset's first images, known before any is mined."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

from actmine.pipeline.datasets.shards import Sample, read_samples
from actmine.pipeline.datasets.sources import Dataset
from actmine.pipeline.preprocessing.images import image_size
from actmine.pipeline.preprocessing.steps import Size

FIRST = 64


def first_sizes(dataset: Dataset, upright: bool = False, most: int = FIRST) -> list[Size]:
    """Width and height (pixels) of up to `most` images by their headers; what cannot be read is passed over.

    `upright`: once they are turned by their EXIF orientation. Raises `ShardError` for a shard that cannot be read.
    """
    return list(islice(_sizes(dataset, upright), most))


def _sizes(dataset: Dataset, upright: bool) -> Iterator[Size]:
    for sample in chain.from_iterable(map(read_samples, dataset.shards)):
        if isinstance(sample, Sample) and (size := image_size(sample.data, upright)):
            yield size
