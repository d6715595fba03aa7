"""`labels/`: one row per unit and label: what the unit makes of the images of a class; one file per layer."""

import pyarrow as pa

from actmine.schemas.fields import field, table

# fmt: off
LABELS = table(
    field("layer", pa.string(), "name of the layer"),
    field("unit", pa.int32(), "number of the unit within its layer (channel), from 0"),
    field("label", pa.int32(), "class number"),
    field("label_name", pa.string(), "the class in words, where known", nullable=True),
    field("images", pa.int32(), "images of the class with an activation that is a number (images)"),
    field("mean", pa.float32(), "mean image activation over these (activation)"),
    field("maximum", pa.float32(), "largest image activation among these (activation)"),
    field("correlation", pa.float32(), "Pearson's correlation of the unit's image activation with belonging to the class, over all images with a label (-1 to 1): (mean of the class - mean) / deviation * sqrt(p / (1 - p)), p being its share of the images; null where the unit does not vary", nullable=True),
)

MAXIMA_IMAGES = table(
    field("image_id", pa.int64(), "number of the image in the whole dataset, counted in shard order, from 0"),
    field("key", pa.string(), "the image's name without extension"),
    field("label", pa.int32(), "class number; null for an unlabelled image", nullable=True),
    field("file", pa.string(), "the file in maxima/ that holds its row: an array of images by units, the layers side by side in the order of layers.parquet"),
    field("row", pa.int32(), "its row there, from 0"),
)
"""`maxima/images.parquet`: one row per image that went through the network, in the order of the matrix."""
