"""`skipped.parquet`: one row per member that did not go through the network, with the reason."""

import pyarrow as pa

from actmine.schemas.fields import field, table

# fmt: off
SKIPPED = table(
    field("shard", pa.int32(), "number of the shard, see shards.parquet"),
    field("position", pa.int64(), "number of the sample within the shard, from 0"),
    field("key", pa.string(), "the sample's name without extension"),
    field("error", pa.string(), "why it was left out"),
)
