"""`checkpoints/`: one row per unit and checkpoint of the network in training; one file per layer."""

import pyarrow as pa

from actmine.schemas.fields import field, table

# fmt: off
CHECKPOINTS = table(
    field("layer", pa.string(), "name of the layer"),
    field("unit", pa.int32(), "number of the unit within its layer (channel), from 0"),
    field("checkpoint", pa.int32(), "which checkpoint, from 0, the oldest; run.json names the runs"),
    field("varies", pa.bool_(), "whether the unit's image activations vary at all at this checkpoint"),
    field("last_similarity", pa.float32(), "estimated correlation of the unit's image activations at this checkpoint with its own in this run, the last (-1 to 1); null where either does not vary", nullable=True),
    field("last_chance", pa.float32(), "similarity that two units which have nothing in common but the images reach in 1 of 20 cases (-1 to 1); docs/units.md says how it is found", nullable=True),
    field("last_q_value", pa.float32(), "the share of such chance pairs to expect among the rows of this checkpoint with so small a p-value (0 to 1; Benjamini and Hochberg 1995)", nullable=True),
    field("before_similarity", pa.float32(), "the same correlation with the checkpoint before; null for the first, and where either does not vary", nullable=True),
    field("born", pa.bool_(), "whether from this checkpoint on the unit is like its last state beyond chance (last_q_value below 0.05 here and at all later checkpoints)"),
    field("heir_layer", pa.string(), "layer of the unit of this run that is most like what this unit was at the checkpoint", nullable=True),
    field("heir_unit", pa.int32(), "number of that unit within its layer, from 0", nullable=True),
    field("heir_similarity", pa.float32(), "estimated correlation with it (-1 to 1)", nullable=True),
    field("heir_chance", pa.float32(), "similarity that the best of all units of this run reaches by chance in 1 of 20 cases (-1 to 1)", nullable=True),
    field("heir_q_value", pa.float32(), "as last_q_value, of the best of all units (0 to 1)", nullable=True),
    field("lost", pa.bool_(), "whether the unit varies at this checkpoint and neither its own last state nor any unit of this run is like it beyond chance (last_q_value and heir_q_value from 0.05 on)"),
)
