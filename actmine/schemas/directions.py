"""`directions/`: one row per latent and rank, those of its dictionary that lie nearest; one file per layer."""

import pyarrow as pa

from actmine.schemas.fields import field, table

# fmt: off
DIRECTIONS = table(
    field("layer", pa.string(), "name of the layer of latents"),
    field("unit", pa.int32(), "number of the latent within its layer, from 0"),
    field("rank", pa.int32(), "0 is the latent whose direction lies nearest; ties go to the smaller number"),
    field("neighbor_unit", pa.int32(), "number of that latent within the layer, from 0"),
    field("cosine", pa.float32(), "cosine of both directions, those of the decoder where there is one (-1 to 1)"),
    field("chance", pa.float32(), "cosine that the nearest of as many random directions reaches in 1 of 20 cases, in a space that prefers none (-1 to 1)"),
)
