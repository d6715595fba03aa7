"""The crops of an activation atlas: what the drawn positions of the images that cells show see of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
from PIL import Image

from actmine.pipeline.cores import usable_cores
from actmine.pipeline.datasets.batches import map_in_order
from actmine.pipeline.datasets.shards import Place, Shard
from actmine.pipeline.exemplars.pictures import Original, encode
from actmine.pipeline.progress import Progress
from actmine.pipeline.storage.parquet import image_column
from actmine.pipeline.work import REMOTE_READS
from actmine.schemas.atlas_crops import POINT_CROPS
from actmine.schemas.crops import BOX

SIDE, WHOLE = 160, 256
"""The longest side of a crop, and of a whole image (pixels)."""


def crops(
    rows: Sequence[Mapping[str, Any]], shards: Mapping[int, Shard], upright: bool, boxed: bool, held: Collection[int],
    progress: Progress,
) -> Iterator[pa.Table]:  # fmt: skip
    """Tables of `POINT_CROPS`, an image each, of `rows` with the place of an image and the box of its position.

    Crops are whole images where they are not `boxed`; no image beside one that is `held` elsewhere, by its number.
    Raises `UserError` or `ImageError` for an image that has changed since.
    """

    def cut(row: Mapping[str, Any]) -> tuple[int, bytes | None, bytes]:
        size = int(row["width"]), int(row["height"])
        image = Original(shards[int(row["shard"])], Place.of(row), size, upright).read()
        whole = None if int(row["image_id"]) in held else _reduced(image, WHOLE)
        if boxed:
            image = image.crop(tuple(int(row[side]) for side in BOX))  # type: ignore[arg-type]
        return int(row["image_id"]), whole, _reduced(image, SIDE)

    far = any(shard.is_far for shard in shards.values())
    workers = max(usable_cores(), REMOTE_READS) if far else usable_cores()
    with progress.stage("Cutting crops", len(rows), "images") as advance, ThreadPoolExecutor(workers, "crop") as pool:
        for image_id, whole, crop in map_in_order(cut, rows, pool, 2 * workers):
            advance(1)
            yield pa.table([pa.array([image_id]), image_column([whole]), image_column([crop])], schema=POINT_CROPS)


def _reduced(image: Image.Image, side: int) -> bytes:
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return encode(small)
