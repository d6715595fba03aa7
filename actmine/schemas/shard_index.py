"""`NAME.index.parquet` beside a shard: one row per image, by which every byte of it can be checked; and what was left out."""

import pyarrow as pa

from actmine.schemas.fields import field, table

# fmt: off
SHARD_INDEX = table(
    field("key", pa.string(), "name of the sample in the shard: the part of the member names before the first dot"),
    field("path", pa.string(), "name of the image's member in the tar"),
    field("offset", pa.int64(), "where the image begins in the tar (bytes)"),
    field("nbytes", pa.int64(), "length of the encoded image (bytes)"),
    field("crc32", pa.uint32(), "CRC-32 of the encoded image, as zlib and zip compute it"),
    field("label", pa.int32(), "class number; null for an unlabelled image", nullable=True),
    field("label_name", pa.string(), "the class in words, where known", nullable=True),
    field("source_shard", pa.int32(), "number of the shard of the source that held it, from 0"),
    field("source_key", pa.string(), "its key there; differs from key where a tar could not hold it"),
    field("source_path", pa.string(), "the image's file there (tar member, or path below the folder)"),
)

SOURCE_SKIPPED = table(
    field("shard", pa.int32(), "number of the shard of the source, from 0"),
    field("url", pa.string(), "the shard: a tar, or the folder whose files make it up"),
    field("position", pa.int64(), "number of the sample within that shard, from 0"),
    field("key", pa.string(), "the sample's name without extension"),
    field("error", pa.string(), "why it was left out"),
)
