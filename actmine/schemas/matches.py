"""`matches/`: one row per unit and rank, the units of another run that respond to the same images; one file per run."""

import pyarrow as pa

from actmine.schemas.chance import CHANCE
from actmine.schemas.fields import field, table

# fmt: off
MATCHES = table(
    field("layer", pa.string(), "name of the layer"),
    field("unit", pa.int32(), "number of the unit within its layer (channel), from 0; a unit without variance has no rows"),
    field("rank", pa.int32(), "0 is the unit most alike; ties go to the earlier layer, then to the smaller unit"),
    field("other_layer", pa.string(), "name of the layer in the other run"),
    field("other_unit", pa.int32(), "number of the unit within that layer, from 0"),
    field("similarity", pa.float32(), "estimated correlation of the two units' image activations over the dataset (-1 to 1); run.json states its error"),
    *CHANCE,
)
