"""`map_images.parquet`: one row per image, its place on the map of images by what they drive."""

import pyarrow as pa

from actmine.schemas.fields import field, table

# fmt: off
IMAGE_MAP = table(
    field("image_id", pa.int64(), "number of the image in the whole dataset"),
    field("x", pa.float32(), "its place from left to right; the map has no unit of length, and its axes mean nothing"),
    field("y", pa.float32(), "its place from bottom to top"),
    field("tops", pa.int32(), "how many units of the mapped layers have it among their exemplars and fire for it"),
    field("kept", pa.float32(), "share of the ten images most alike it, by the units that they drive, that are among the ten nearest on the map; null for an image that shares no unit", nullable=True),
)
