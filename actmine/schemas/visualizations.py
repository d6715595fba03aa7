"""`visualizations/`: one row per unit, preset and facet; one file per layer and preset."""

import pyarrow as pa

from actmine.schemas.fields import IMAGE, field, table

RANK = "the unit's rank within its layer when that picture is shown, 0 is first: image activations of all units, each standardized by its own activation_mean and activation_std; units without a deviation or that never fired over the dataset are left out and have none"

# fmt: off
VISUALIZATIONS = table(
    field("layer", pa.string(), "name of the layer"),
    field("unit", pa.int32(), "number of the unit within its layer (channel), from 0"),
    field("facet", pa.int32(), "number of the facet, from 0, where the preset draws several pictures of a unit", nullable=True),
    field("preset", pa.string(), "name of the ascent recipe"),
    field("seed", pa.int64(), "seed of the ascent of this unit"),
    field("attempts", pa.int32(), "ascents tried until the unit fired; with activation <= 0 it never did"),
    field("visualization", IMAGE, "what gradient ascent drew for the unit (PNG)"),
    field("activation", pa.float32(), "the unit's image activation on that 8-bit picture, unmodified network (activation)"),
    field("ratio", pa.float64(), "activation / activation_max of units/; null where that maximum is not positive", nullable=True),
    field("rank", pa.int32(), RANK, nullable=True),
    field("recipe", pa.string(), "fingerprint of all that the picture depends on: the mined run, the preset's parts, the command's seed, the kind of device"),
)
