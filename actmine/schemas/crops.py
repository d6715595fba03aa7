"""`crops.parquet`: one row per region of an image that shows more than its picture does, shared by all exemplars."""

import pyarrow as pa

from actmine.schemas.fields import IMAGE, field, table

BOX = ("left", "top", "right", "bottom")
"""The columns of a region, here and in exemplars/."""

# fmt: off
CROPS = table(
    field("image_id", pa.int64(), "number of the image in the whole dataset, counted in shard order; rows are sorted by it, then by the box"),
    field("left", pa.int32(), "left edge of the receptive field (pixels of the original image, inclusive), with the next three equal to those of all exemplars that share the crop"),
    field("top", pa.int32(), "top edge of the receptive field (pixels of the original image, inclusive)"),
    field("right", pa.int32(), "right edge of the receptive field (pixels of the original image, exclusive)"),
    field("bottom", pa.int32(), "bottom edge of the receptive field (pixels of the original image, exclusive)"),
    field("crop", IMAGE, "the original pixels inside the box (PNG up to 64 x 64 pixels, JPEG above); only for boxes up to about half of the sides of an image whose picture in pictures.parquet is reduced"),
)
