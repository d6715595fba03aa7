"""The columns that say what a similarity is worth, in `neighbors.parquet` and `matches/`."""

import pyarrow as pa

from actmine.schemas.fields import field

LEVEL = 0.05
"""A similarity is beyond chance where its q-value is below it."""

# fmt: off
CHANCE = (
    field("chance", pa.float32(), "similarity that the best of as many units reaches in 1 of 20 cases though it has nothing to do with this unit but the images: by chance, and by what the images do to all units (-1 to 1); docs/units.md says how it is found"),
    field("q_value", pa.float32(), "the share of such chance pairs to expect among the rows of this table with so small a p-value (0 to 1; Benjamini and Hochberg 1995); from 0.05 on, the units are not known to be alike"),
)
