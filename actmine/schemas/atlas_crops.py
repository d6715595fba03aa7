"""`atlas_crops/`: one row per image that a cell shows, what its drawn position sees; one file per layer."""

import pyarrow as pa

from actmine.schemas.fields import IMAGE, field, table

# fmt: off
POINT_CROPS = table(
    field("image_id", pa.int64(), "number of the image in the whole dataset"),
    field("whole", IMAGE, "the whole image, at most 256 pixels a side; null for those of images.parquet, which the run shows as it is"),
    field("crop", IMAGE, "the receptive field of its drawn position, at most 160 pixels a side; the whole image where boxes are in pixels of the network's input"),
)
