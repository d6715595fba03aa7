"""`pictures.parquet`: one row per image that any exemplar names, the picture of it that the run keeps."""

import pyarrow as pa

from actmine.schemas.fields import IMAGE, field, table

# fmt: off
PICTURES = table(
    field("image_id", pa.int64(), "number of the image in the whole dataset, counted in shard order; rows are sorted by it"),
    field("width", pa.int32(), "width of the picture (pixels); that of images.parquet where it is not reduced"),
    field("height", pa.int32(), "height of the picture (pixels)"),
    field("picture", IMAGE, "the whole image, its shorter side reduced to what run.json has as pictures (PNG up to 64 x 64 pixels, JPEG above); or the image file's own bytes where it is no larger than that, where its crops would take more, and everywhere if pictures is original. A box of exemplars/ without a row in crops.parquet is cut out of it: times width / width of images.parquet"),
)
