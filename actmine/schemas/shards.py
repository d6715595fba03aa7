"""`shards.parquet`: the account of the whole dataset; `seen + skipped = members` on every row."""

import pyarrow as pa

from actmine.schemas.fields import field, table

# fmt: off
SHARDS = table(
    field("shard", pa.int32(), "number of the shard in dataset order, from 0"),
    field("url", pa.string(), "absolute path or address of the tar or Parquet file, or of the folder whose files make up the shard; python:NAME for a dataset given from Python"),
    field("members", pa.int64(), "samples in the shard: groups of files that share a key (samples)"),
    field("seen", pa.int64(), "samples whose image went through the network (images)"),
    field("skipped", pa.int64(), "samples that did not, each a row of skipped.parquet (samples)"),
    field("turned", pa.int64(), "seen images whose EXIF orientation says that they are not stored upright (images); null in runs of versions before", nullable=True),
)
