"""`images.parquet`: one row per image that any exemplar names."""

import pyarrow as pa

from actmine.schemas.fields import field, table

# fmt: off
IMAGES = table(
    field("image_id", pa.int64(), "number of the image in the whole dataset, counted in shard order, from 0"),
    field("key", pa.string(), "the image's name without extension"),
    field("shard", pa.int32(), "number of the shard that holds it, see shards.parquet"),
    field("path", pa.string(), "name of the image file inside its shard (tar member, path below the folder, or as Parquet has it)" ),
    field("offset", pa.int64(), "where its bytes begin in the tar (bytes); its row in a Parquet file or dataset; 0 for a file of a folder"),
    field("nbytes", pa.int64(), "length of the encoded image (bytes)"),
    field("crc32", pa.int64(), "CRC-32 of these bytes as they were mined; null in runs of versions before", nullable=True),
    field("width", pa.int32(), "width of the original image (pixels)"),
    field("height", pa.int32(), "height of the original image (pixels)"),
    field("label", pa.int32(), "class number; null for an unlabelled image", nullable=True),
    field("label_name", pa.string(), "the class in words, where known", nullable=True),
)
